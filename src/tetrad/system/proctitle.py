"""Set what ps(1) shows of a process, through /proc. Imports no library: setproctitle has threads.

The kernel shows the memory that held the arguments of the program. The title is written there
through /proc/self/mem; if the last byte of that memory is not NUL, the kernel takes the text up to
the first NUL for a title, as setproctitle(3) uses it.
"""

from __future__ import annotations

from os import O_RDONLY, O_WRONLY, close, pwrite, read, write
from os import open as open_file

NAME = b"tetrad"

_FORMAT = NAME + b": %b\0"
_END_MARK = b"."
_OVERHEAD_BYTES = len(_FORMAT % b"") + len(_END_MARK)

_MEMORY = "/proc/self/mem"

_ARG_START, _ARG_END = 47, 48
"""Indexes of arg_start and arg_end in /proc/self/stat, counted from 0 (proc(5))."""


class ProcessTitle:
    """The title of this process, which its children inherit; `text` is the part after the name.

    With another file for `memory`, the same code runs and nothing is shown.
    """

    __slots__ = ("_max_bytes", "_memory", "_start", "_unmarked_end", "text")

    def __init__(self, memory: str = _MEMORY) -> None:
        self.text = b""
        self._memory = memory
        self._start, end = _argument_memory()
        self._max_bytes = max(0, end - self._start - _OVERHEAD_BYTES)
        self._unmarked_end = end
        _write("/proc/self/comm", NAME)

    def show(self, text: bytes) -> None:
        """Set the title to `tetrad: TEXT`, cut to the memory there is. Errors are ignored."""
        if self._max_bytes and text != self.text:
            self.text = text
            _write(self._memory, _FORMAT % text[: self._max_bytes], self._start)
            # After the first title: until then, the process is known by all of its arguments.
            if self._unmarked_end:
                _write(self._memory, _END_MARK, self._unmarked_end - len(_END_MARK))
                self._unmarked_end = 0


def of_master(file: str | None) -> bytes:
    """Return the title of a master after the name; `file` is the path of its configuration."""
    return f"master {file or ''}".rstrip().encode("utf-8", "backslashreplace")


def _argument_memory() -> tuple[int, int]:
    """Return the addresses where the memory of the arguments begins and ends; 0, 0 if unknown."""
    try:
        fd = open_file("/proc/self/stat", O_RDONLY)
        try:
            fields = read(fd, 4096).rpartition(b") ")[2].split()
        finally:
            close(fd)
        return int(fields[_ARG_START - 2]), int(fields[_ARG_END - 2])
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
        pass  # the process works without a title
