"""What a terminal may be shown of what others have written."""

from __future__ import annotations


def escape_unprintable(text: str) -> str:
    """Return a text in which nothing is left that a terminal would obey, in one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
