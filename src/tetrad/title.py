"""What `ps` shows of a process, set through /proc instead of a library that brings threads along.

The kernel shows the memory in which a program got its arguments. A title is written there, through
/proc/self/mem; a last byte that is not NUL tells the kernel that it is one (setproctitle(3)).
"""

from __future__ import annotations

import os

NAME = "tetrad"

_START, _END = 47, 48
"""Where arg_start and arg_end stand in /proc/self/stat, as of proc(5), counted from 0."""


class Title:
    """The title of this process and of its children; `width` is how many bytes it has room for."""

    __slots__ = ("_shown", "_start", "width")

    def __init__(self) -> None:
        self._shown = ""
        self._start, self.width = _arguments()
        _write("/proc/self/comm", NAME.encode())

    @property
    def text(self) -> str:
        """What is shown."""
        return self._shown

    def set(self, text: str) -> None:
        """Show `tetrad: TEXT`. Where the kernel does not let us, nothing is shown."""
        if self.width and text != self._shown:
            self._shown = text
            room = self.width - 2
            title = f"{NAME}: {text}".encode("ascii", "backslashreplace")[:room]
            _write("/proc/self/mem", title.ljust(room + 1, b"\0") + b".", self._start)


def _arguments() -> tuple[int, int]:
    """Return the address and the length of the arguments' memory."""
    try:
        fd = os.open("/proc/self/stat", os.O_RDONLY)
        try:
            fields = os.read(fd, 4096).rpartition(b") ")[2].split()
        finally:
            os.close(fd)
        start, end = int(fields[_START - 2]), int(fields[_END - 2])
    except (OSError, ValueError, IndexError):
        return 0, 0
    return start, end - start


def _write(path: str, data: bytes, offset: int | None = None) -> None:
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            _ = os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)
        finally:
            os.close(fd)
    except OSError:
        pass  # a title is a courtesy
