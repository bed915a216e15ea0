"""The lead time of certificate warnings, in a module that does not import `ssl`."""

from __future__ import annotations

EXPIRY_WARNING_SECONDS = 30 * 86400.0
"""How long before the expiry of a certificate the warnings begin."""
