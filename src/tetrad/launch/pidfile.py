"""The pidfile, as the front and the operator's commands see it.

A lock decides whether the daemon runs, never what the file says, and never `kill(pid, 0)`. It is a
record lock (fcntl(2)): it belongs to the master alone, its children do not inherit it, the kernel
lets go of it when the master dies, however it dies, and tells whose it is. It is on one byte
that no other program would think of, so that none is taken for a daemon of ours by its lock.
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

_PLACE, _LENGTH = int.from_bytes(b"tetrad"), 1
"""Which byte is locked: one far behind the text."""

_LONGEST = 64
_CONTENT = re.compile(rb"[\x20-\x7e\0]*\n?")


class State(NamedTuple):
    """Whose the lock is: a running daemon's pid, or None; and whether one that died left a pid."""

    pid: int | None
    left: bool


class NotAPidfileError(OSError):
    """The path leads to something that is not a pidfile, and must not be touched."""


def look(path: str) -> State:
    """Tell whether a daemon holds the pidfile. Raises OSError if that cannot be known."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return State(None, left=False)
    except OSError as error:
        raise _explained(error, path) from None
    try:
        _insist_on_file(fd, path)
        return State(holder(fd, path), left=os.fstat(fd).st_size > 0)
    finally:
        os.close(fd)


@contextlib.contextmanager
def turn_to_start(path: str) -> Iterator[int]:
    """Give the file's descriptor to one starter at a time; the others wait for theirs.

    Raises OSError: NotAPidfileError if the path leads to what is no pidfile.
    """
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_still_there(fd, path):
                yield fd
                return
        finally:
            with contextlib.suppress(OSError):  # it is at its place for the master already
                os.close(fd)


def holder(fd: int, path: str) -> int | None:
    """Return the pid of the daemon that holds an open pidfile, or None.

    Raises NotAPidfileError if the lock is not a daemon's.
    """
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _PLACE, _LENGTH, 0)
    kind, _, start, length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
    if kind == fcntl.F_UNLCK:
        return None
    if (start, length) != (_PLACE, _LENGTH) or pid <= 0:
        who = f"pid {pid}" if pid > 0 else "which cannot be seen from here"
        raise NotAPidfileError(errno.EBUSY, f"locked by another program ({who})", path)
    return int(pid)


def take(fd: int) -> None:
    """Lock an open pidfile for this process and write its pid; the next starter may have its turn.

    No copy of the descriptor may be closed by this process from here on: the lock would be lost.
    Raises BlockingIOError if another daemon holds it.
    """
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _LENGTH, _PLACE)
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    fcntl.flock(fd, fcntl.LOCK_UN)


def may_undo(fd: int, path: str) -> bool:
    """Have the turn again that `take` gave away; tell whether no other daemon has come since."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    return _is_still_there(fd, path) and holder(fd, path) is None


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o644)
    except OSError as error:
        raise _explained(error, path) from None
    try:
        _insist_on_file(fd, path)
    except OSError:
        os.close(fd)
        raise
    return fd


def _insist_on_file(fd: int, path: str) -> None:
    """Refuse what a slip of the pen could name: devices, pipes, anybody's text."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise NotAPidfileError(errno.EINVAL, "not a regular file", path)
    if status.st_size > _LONGEST or not _CONTENT.fullmatch(os.pread(fd, _LONGEST, 0)):
        raise NotAPidfileError(errno.EINVAL, "this is no pidfile, so it is not touched", path)


def _explained(error: OSError, path: str) -> OSError:
    if error.errno == errno.ELOOP:
        return NotAPidfileError(errno.ELOOP, "a symbolic link, which is not followed", path)
    return error


def _is_still_there(fd: int, path: str) -> bool:
    """Tell whether the path still leads to this file: a daemon that stopped has taken it away."""
    ours = os.fstat(fd)
    try:
        theirs = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
