"""Why the system did not do what it was asked to, in the words of all messages."""

from __future__ import annotations


def reason_of(error: OSError) -> str:
    """Return what stands behind the name of a thing and a colon."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
