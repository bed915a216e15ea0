"""The log's file: opened for appending, noticed when it is moved away, and never left torn."""

from __future__ import annotations

import os
import stat

_TAIL_BYTES = 8192
_OWN_LINE = (b'{"timestamp":"', b"timestamp=")
"""How a line of ours begins: only such a one is cut off when it is torn."""

STANDARD_ERROR = 2


class LogFile:
    """A file, or standard error for None. Errors are the return value, never raised."""

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
        """Open the file anew; if that cannot be, the open one is written on, if it exists."""
        if self._path is None:
            return True
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            fd = os.open(self._path, flags, 0o666)
        except OSError:
            if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
                self._close()
            return False
        self._close()
        self._fd = fd
        status = os.fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        if repair and stat.S_ISREG(status.st_mode):
            self._cut(status.st_size)
        return True

    def was_moved(self) -> bool:
        """Tell whether the path leads to another file than the open one, or to none."""
        if self._path is None:
            return False
        try:
            status = os.stat(self._path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._identity

    def write(self, lines: list[bytes]) -> int:
        """Write lines, and return how many of them are written whole."""
        data = b"".join([line + b"\n" for line in lines])
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
        except OSError:
            return self._keep_whole(data[:written])
        return len(lines)

    def _keep_whole(self, written: bytes) -> int:
        """Take back the piece of a line that was still written, and return how many are whole."""
        torn = len(written) - (written.rfind(b"\n") + 1)
        if torn:
            try:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - torn)
            except OSError:
                pass  # not a file that can be cut; the next line begins behind the piece
        return written.count(b"\n")

    def _cut(self, size: int) -> None:
        """Take away the torn line that a logger killed in the middle of a write has left."""
        tail = os.pread(self._fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        torn = tail[tail.rfind(b"\n") + 1 :]
        if torn.startswith(_OWN_LINE):
            os.ftruncate(self._fd, size - len(torn))
        elif torn:
            os.write(self._fd, b"\n")

    def _close(self) -> None:
        if self._fd not in {-1, STANDARD_ERROR}:
            os.close(self._fd)
        self._fd = -1
