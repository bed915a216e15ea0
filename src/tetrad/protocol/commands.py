"""The four-byte command protocol: bytes in, commands out, and never any I/O.

A TCP stream has no message boundaries, so these rules find the commands in it:

* carriage returns, line feeds, spaces, tabs and NULs *between* commands are skipped;
* commands may be pipelined, and may arrive in pieces of any size;
* as soon as the received bytes cannot become a known command any more, they are one invalid
  command: its first one to four bytes are kept for the log, and the other bytes received so far are
  thrown away;
* a line ending inside an unfinished command ends it, as invalid.

The caller decides which bytes count as received so far, and what a command answers.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LENGTH = 4
"""Bytes in the name of a command."""

SEPARATORS = b"\r\n \t\0"

_PRINTABLE = range(0x20, 0x7F)


class Parser:
    """Finds the commands in a client's bytes. `names` are the known ones, four bytes each."""

    __slots__ = ("_names", "_prefixes", "_unfinished")

    def __init__(self, names: Iterable[bytes]) -> None:
        self._names = frozenset(names)
        self._prefixes = frozenset(name[:n] for name in self._names for n in range(1, LENGTH))
        self._unfinished = b""

    def reset(self) -> None:
        """Forget an unfinished command: the next input comes from another client."""
        self._unfinished = b""

    @property
    def unfinished(self) -> bytes:
        """The one to three bytes of a command that is not complete yet, or nothing."""
        return self._unfinished

    def feed(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """Return the commands that `data` completes, and the invalid command, or None.

        An invalid command is its first one to four bytes, up to a line ending. It is always the
        last: the bytes behind it in `data` are thrown away.
        """
        data = self._unfinished + data
        self._unfinished = b""
        commands: list[bytes] = []
        names = self._names
        at, end = 0, len(data)
        while True:
            while at < end and data[at] in SEPARATORS:
                at += 1
            word = data[at : at + LENGTH]
            if word not in names:
                break
            commands.append(word)
            at += LENGTH
        if word in self._prefixes:
            self._unfinished = word
            return commands, None
        return commands, _first_line(word) or None

    def finish(self) -> bytes | None:
        """End the input; return an unfinished command, which is invalid now, or None."""
        unfinished, self._unfinished = self._unfinished, b""
        return unfinished or None


def printable(command: bytes) -> str:
    r"""Return bytes as the log shows them: printable ASCII as it is, the rest as ``\xNN``."""
    return "".join(chr(n) if n in _PRINTABLE else f"\\x{n:02x}" for n in command)


def _first_line(word: bytes) -> bytes:
    return word.partition(b"\n")[0].partition(b"\r")[0]
