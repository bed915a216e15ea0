"""Text on a terminal: no character of it can control the terminal, whoever wrote the text.

Answers of a daemon and of its clients, file names and arguments may have such characters. A text
stream to a terminal escapes them, so no command needs to. What is not text, such as the colours of
`tetrad logs`, is written to the stream's buffer.
"""

from __future__ import annotations

import io

from tetrad.system.text import escape_unprintable


class TerminalStream(io.TextIOWrapper):
    """A stream that writes characters that are not printable as escapes; lines and tabs stay."""

    def write(self, text: str) -> int:
        """Write a text; return its length, without the escapes."""
        length = len(text)
        if not text.isprintable():
            text = text.replace("\r\n", "\n").translate(_ESCAPES)
        super().write(text)
        return length


class _Escapes(dict[int, str]):
    """What to write for each character, for str.translate."""

    def __missing__(self, code: int) -> str:
        return self.setdefault(code, escape_unprintable(chr(code)))


_ESCAPES = _Escapes({ord("\n"): "\n", ord("\t"): "\t"})


def protect(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return the stream itself, or one in its place if it leads to a terminal."""
    if not stream.isatty():
        return stream
    encoding, errors = stream.encoding, stream.errors
    return TerminalStream(stream.detach(), encoding, errors, line_buffering=True)
