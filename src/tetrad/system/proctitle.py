"""What `ps` shows of a process, set through /proc instead of a library that brings threads along.

The kernel shows the memory in which a program got its arguments. A title is written there, through
/proc/self/mem; a last byte that is not NUL tells the kernel that it is one (setproctitle(3)).
"""

from __future__ import annotations

from os import O_RDONLY, O_WRONLY, close, pwrite, read, write
from os import open as open_file

NAME = b"tetrad"

_SHOWN = NAME + b": %b\0"
_MARK = b"."
_OTHERS = len(_SHOWN % b"") + len(_MARK)
"""How many bytes there are beside the text."""

_START, _END = 47, 48
"""Where arg_start and arg_end stand in /proc/self/stat, as of proc(5), counted from 0."""


class ProcessTitle:
    """The title of this process and of its children: `text` is what it says behind the name."""

    __slots__ = ("_room", "_start", "text")

    def __init__(self) -> None:
        self.text = b""
        self._start, end = _arguments()
        self._room = max(0, end - self._start - _OTHERS)
        _write("/proc/self/comm", NAME)
        if self._room:
            _write("/proc/self/mem", _MARK, end - len(_MARK))

    def show(self, text: bytes) -> None:
        """Show `tetrad: TEXT`. Where the kernel does not let us, nothing is shown."""
        if self._room and text != self.text:
            self.text = text
            _write("/proc/self/mem", _SHOWN % text[: self._room], self._start)


def _arguments() -> tuple[int, int]:
    """Return where the arguments' memory begins and ends."""
    try:
        fd = open_file("/proc/self/stat", O_RDONLY)
        try:
            fields = read(fd, 4096).rpartition(b") ")[2].split()
        finally:
            close(fd)
        return int(fields[_START - 2]), int(fields[_END - 2])
    except (OSError, ValueError, IndexError):
        return 0, 0


def _write(path: str, data: bytes, offset: int | None = None) -> None:
    try:
        fd = open_file(path, O_WRONLY)
        try:
            _ = write(fd, data) if offset is None else pwrite(fd, data, offset)
        finally:
            close(fd)
    except OSError:
        pass  # a title is a courtesy
