"""The pidfile: whether a daemon runs, which start goes first, and the master's claim.

A lock decides whether a daemon runs, never the file's text and never `kill(pid, 0)`. It is a record
lock (fcntl(2)) of the master: its children do not inherit it, the kernel releases it however the
master ends, and F_GETLK returns the owner's pid. It covers one byte far behind the text: a program
that locks the whole file is not mistaken for a daemon.

A second lock on the same file, flock(2), lets one start proceed at a time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLOCK = struct.Struct("@hhqqi4x")
"""struct flock: type, whence, start, length, pid."""

_LOCK_OFFSET, _LOCK_BYTES = int.from_bytes(b"tetrad"), 1
"""The byte that the record lock covers."""

_MAX_BYTES = 64
_CONTENT = re.compile(rb"[\x20-\x7e\0]*\n?")


class PidfileState(NamedTuple):
    """The pid of the running daemon, if any. `is_stale`: a daemon died and left the file."""

    pid: int | None
    is_stale: bool


class NotAPidfileError(OSError):
    """The file at the path is not a daemon's pidfile and must not be modified."""


def read_state(path: str) -> PidfileState:
    """Return whether a daemon holds the pidfile. Raises OSError if that cannot be determined."""
    try:
        fd = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return PidfileState(None, is_stale=False)
    try:
        pid = lock_owner(fd, path)
        return PidfileState(pid, is_stale=pid is None and os.fstat(fd).st_size > 0)
    finally:
        os.close(fd)


@contextlib.contextmanager
def start_lock(path: str) -> Iterator[int]:
    """Create the pidfile if necessary and lock it against other starts; wait for the lock.

    Returns its descriptor. Raises OSError.
    """
    while True:
        fd = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_same_file(fd, path):
                yield fd
                return
        finally:
            with contextlib.suppress(OSError):  # it was moved to its number for the master
                os.close(fd)


def lock_owner(fd: int, path: str) -> int | None:
    """Return the pid of the daemon that holds an open pidfile, or None.

    Raises NotAPidfileError if another program holds a lock.
    """
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _LOCK_OFFSET, _LOCK_BYTES, 0)
    kind, _, start, length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
    if kind == fcntl.F_UNLCK:
        return None
    if (start, length) != (_LOCK_OFFSET, _LOCK_BYTES) or pid <= 0:
        owner = f"pid {pid}" if pid > 0 else "pid unknown"
        raise NotAPidfileError(errno.EBUSY, f"locked by another program ({owner})", path)
    return int(pid)


def claim(fd: int) -> None:
    """Take the record lock for this process, write its pid, and release the start lock.

    From here on, this process must not close any descriptor of the file: that releases the record
    lock. Raises BlockingIOError if another daemon holds it.
    """
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _LOCK_OFFSET)
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    fcntl.flock(fd, fcntl.LOCK_UN)


def relock(fd: int, path: str) -> bool:
    """Take the start lock again; tell whether no other daemon has started since it was released."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    return _is_same_file(fd, path) and lock_owner(fd, path) is None


def _open(path: str, flags: int) -> int:
    """Open a pidfile. Raises OSError, and NotAPidfileError for every other kind of file."""
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAPidfileError(errno.ELOOP, "is a symbolic link; not followed", path) from None
        raise
    try:
        _require_pidfile(fd, path)
    except OSError:
        os.close(fd)
        raise
    return fd


def _require_pidfile(fd: int, path: str) -> None:
    """Reject what a mistake in the configuration could name: devices, pipes, other text files."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise NotAPidfileError(errno.EINVAL, "is not a regular file", path)
    if status.st_size > _MAX_BYTES or not _CONTENT.fullmatch(os.pread(fd, _MAX_BYTES, 0)):
        raise NotAPidfileError(errno.EINVAL, "is not a pidfile; not modified", path)


def _is_same_file(fd: int, path: str) -> bool:
    """Tell whether the path still names the open file: a daemon that stops removes its pidfile."""
    ours = os.fstat(fd)
    try:
        theirs = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
