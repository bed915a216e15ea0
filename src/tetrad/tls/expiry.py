"""When a certificate is so near its end that the operator is warned."""

from __future__ import annotations

EXPIRY_WARNING_SECONDS = 30 * 86400.0
"""How long before the end of a certificate warnings begin, in seconds."""
