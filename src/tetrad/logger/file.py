"""The log's file: opened for appending, noticed when it is moved away, and never left torn."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_TAIL_BYTES = 8192
_OWN_LINE = (b'{"timestamp":"', b"timestamp=")
"""How a line of ours begins: only such a one is cut off when it is torn."""

STANDARD_ERROR = 2

NO_TERMINAL = "log.file is null, but a daemon has no terminal: name a file, or use tetrad run"
"""What is wrong with standard error for one that was started."""


def try_out(path: str | None, pidfile: str) -> None:
    """Open a log's file and close it again. Raises OSError, also if it is the pidfile by a link.

    Not for the master: it would lose the lock on its pidfile by closing that.
    """
    if path is None:
        return
    fd, status = _open(path)
    os.close(fd)
    if os.path.exists(pidfile) and os.path.samestat(status, os.stat(pidfile)):
        raise FileExistsError(errno.EEXIST, "this is daemon.pidfile by another name", path)


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
            fd, status = _open(self._path)
        except OSError:
            if self._is_deleted():
                self._close()
            return False
        self._close()
        self._fd = fd
        self._identity = (status.st_dev, status.st_ino)
        if repair and stat.S_ISREG(status.st_mode):
            with contextlib.suppress(OSError):  # a full disk: the next line begins behind the piece
                _cut(fd, status.st_size)
        return True

    def was_moved(self) -> bool:
        """Tell whether the path leads to another file than the open one, or to none."""
        if self._path is None:
            return False
        try:
            status = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return self._fd < 0  # nobody can tell: what is open is as good as ever
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
    """Open a file for appending, and look what it is. Raises OSError.

    To read and write: a named pipe that nobody reads yet must not hold up anybody.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    fd = os.open(path, flags, 0o666)
    try:
        return fd, os.fstat(fd)
    except OSError:
        os.close(fd)
        raise


def _cut(fd: int, size: int) -> None:
    """Take away the torn line that a logger killed in the middle of a write has left."""
    tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    torn = tail[tail.rfind(b"\n") + 1 :]
    if torn.startswith(_OWN_LINE):
        os.ftruncate(fd, size - len(torn))
    elif torn:
        os.write(fd, b"\n")
