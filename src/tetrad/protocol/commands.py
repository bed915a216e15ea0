"""The four-byte command protocol: bytes in, commands out, and never any I/O.

TCP is a stream, so the original's "one read is one command" is made exact:

* carriage returns, line feeds, spaces, tabs and NULs *between* commands are skipped;
* commands may be pipelined, and may arrive in any pieces;
* as soon as the bytes at hand can no longer become a known command they are one invalid command,
  of which up to four bytes are kept for the log, and everything else at hand is thrown away;
* a line ending inside an unfinished command ends it too, as invalid.

The one who calls decides what "at hand" means, and what a command answers.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LENGTH = 4
"""Bytes in a command's name."""

SEPARATORS = b"\r\n \t\0"


class Parser:
    """Cuts a client's bytes into commands; `names` are the known ones, four bytes each."""

    __slots__ = ("_names", "_prefixes", "_unfinished")

    def __init__(self, names: Iterable[bytes], prefixes: frozenset[bytes] | None = None) -> None:
        self._names = frozenset(names)
        self._prefixes = _prefixes(self._names) if prefixes is None else prefixes
        self._unfinished = b""

    def another(self) -> Parser:
        """Return a parser of the same commands, for another client."""
        return Parser(self._names, self._prefixes)

    @property
    def unfinished(self) -> bytes:
        """The one to three bytes of a command that has not ended yet, or nothing."""
        return self._unfinished

    def feed(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """Return the commands that `data` completes, and the invalid one that came last, if any.

        An invalid command is given by its first one to four bytes, up to its line ending. What
        stood behind it in `data` is gone, so it is always the last.
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
        """End the input: a command that was still unfinished can only be invalid now."""
        unfinished, self._unfinished = self._unfinished, b""
        return unfinished or None


def printable(command: bytes) -> str:
    r"""Return a command as the log shows it: printable ASCII as it is, the rest as ``\xNN``."""
    return "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in command.decode("latin-1"))


def _prefixes(names: frozenset[bytes]) -> frozenset[bytes]:
    return frozenset(name[:n] for name in names for n in range(1, LENGTH))


def _first_line(word: bytes) -> bytes:
    return word.partition(b"\n")[0].partition(b"\r")[0]
