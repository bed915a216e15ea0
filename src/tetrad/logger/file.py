"""The log file: opened for appending, reopened after it was moved, kept free of partial lines."""

from __future__ import annotations

import contextlib
import os
import stat

_TAIL_BYTES = 8192
_OWN_LINE = (b'{"timestamp":"', b"timestamp=")
"""How the logger's lines begin. A partial line that begins otherwise is not removed."""

STANDARD_ERROR = 2


class LogFile:
    """A log file, or standard error if the path is None. Methods return errors, and never raise."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._fd = STANDARD_ERROR if path is None else -1
        self._identity: tuple[int, int] | None = None

    def move(self, path: str | None) -> None:
        """Write to another file from now on."""
        if path != self._path:
            self._close()
            self._path = path
            self._fd = STANDARD_ERROR if path is None else -1
            self.open()

    def open(self, *, repair: bool = False) -> bool:
        """Open the file again. If that fails, return False and keep the open file unless deleted.

        `repair` removes a partial line at the end.
        """
        if self._path is None:
            return True
        try:
            fd, status = _open(self._path)
        except OSError:
            if self._is_deleted():
                self._close()
            return False
        self._close()
        self._fd = fd
        self._identity = (status.st_dev, status.st_ino)
        if repair and stat.S_ISREG(status.st_mode):
            with contextlib.suppress(OSError):  # disk full: the next line follows the partial one
                _repair_end(fd, status.st_size)
        return True

    def was_moved(self) -> bool:
        """Tell whether the path is no longer that of the open file."""
        if self._path is None:
            return False
        try:
            status = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return self._fd < 0  # the path cannot be examined: keep the open file
        return (status.st_dev, status.st_ino) != self._identity

    def write(self, lines: list[bytes]) -> int:
        """Write lines, and return how many of them were written completely."""
        data = b"".join([line + b"\n" for line in lines])
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
        except OSError:
            return self._remove_partial_line(data[:written])
        return len(lines)

    def _remove_partial_line(self, written: bytes) -> int:
        """Truncate the file to complete lines; return how many lines of `written` are complete."""
        partial = len(written) - (written.rfind(b"\n") + 1)
        if partial:
            try:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - partial)
            except OSError:
                pass  # not a regular file: the next line follows the partial one
        return written.count(b"\n")

    def _is_deleted(self) -> bool:
        try:
            return self._fd >= 0 and os.fstat(self._fd).st_nlink == 0
        except OSError:
            return False

    def _close(self) -> None:
        if self._fd not in {-1, STANDARD_ERROR}:
            os.close(self._fd)
        self._fd = -1


def _open(path: str) -> tuple[int, os.stat_result]:
    """Open a file for appending; return its descriptor and status. Raises OSError.

    Opened for reading too, because opening a named pipe for writing only waits for a reader.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    fd = os.open(path, flags, 0o666)
    try:
        return fd, os.fstat(fd)
    except OSError:
        os.close(fd)
        raise


def _repair_end(fd: int, size: int) -> None:
    """Remove the partial line of a logger that was killed; end a partial line of other origin."""
    tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    partial = tail[tail.rfind(b"\n") + 1 :]
    if partial.startswith(_OWN_LINE):
        os.ftruncate(fd, size - len(partial))
    elif partial:
        os.write(fd, b"\n")
