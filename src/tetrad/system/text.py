"""Text for people: reasons of system errors, and text that is safe on a terminal."""

from __future__ import annotations


def reason_of(error: OSError) -> str:
    """Return what stands behind the name of a thing and a colon."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def escape_unprintable(text: str) -> str:
    """Return a text in which nothing is left that a terminal would obey, in one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
