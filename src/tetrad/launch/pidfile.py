"""The pidfile: whether a daemon runs, which start goes first, and the master's claim.

A lock decides whether a daemon runs, never the file's text and never `kill(pid, 0)`. It is a record
lock (fcntl(2)) of the master: its children do not inherit it, the kernel releases it however the
master ends, and F_GETLK returns the owner's pid. It covers one byte far behind the text: a program
that locks the whole file is not mistaken for a daemon. Only a lock for writing counts: for that a
program must be able to write to the file, which belongs to the user that starts the daemon.

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
import time
from typing import TYPE_CHECKING, NamedTuple

from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODE = 0o600
"""Other users need not read it, and could lock it if they could."""

START_LOCK_TIMEOUT_SECONDS = 10.0
"""How long a start waits for another one, which holds the lock until its master is executed."""

_POLL_SECONDS = 0.02

_FLOCK = struct.Struct("@hhqqi4x")
"""struct flock: type, whence, start, length, pid."""

_LOCK_OFFSET, _LOCK_BYTES = int.from_bytes(b"tetrad"), 1
"""The byte that the record lock covers."""

_LOCKS = "/proc/locks"

_MAX_BYTES = 64
_CONTENT = re.compile(rb"[\x20-\x7e\0]*\n?")


class PidfileState(NamedTuple):
    """The pid of the running daemon, if any. `is_stale`: a daemon died and left the file."""

    pid: int | None
    is_stale: bool


class NotAPidfileError(OSError):
    """The file at the path is not a daemon's pidfile and must not be modified."""


class _Lock(NamedTuple):
    """A lock as /proc/locks shows it; `first` and `last` are bytes of the file."""

    kind: str
    mode: str
    pid: int
    inode: int
    first: str
    last: str


def read_state(path: str) -> PidfileState:
    """Return whether a daemon holds the pidfile. Raises OSError if that cannot be determined."""
    try:
        fd = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return PidfileState(None, is_stale=False)
    except PermissionError as error:
        return _state_of_unreadable(path, error)
    try:
        pid = lock_owner(fd, path)
        return PidfileState(pid, is_stale=pid is None and os.fstat(fd).st_size > 0)
    finally:
        os.close(fd)


def all_owners() -> list[int]:
    """Return the pids of all processes that hold a pidfile, also one that was removed.

    The list is empty if the kernel does not show it.
    """
    with contextlib.suppress(OSError):
        return [lock.pid for lock in _locks() if _is_daemons(lock)]
    return []


@contextlib.contextmanager
def start_lock(path: str, check: Callable[[], object] = lambda: None) -> Iterator[int]:
    """Create the pidfile if necessary and lock it against other starts; wait for the lock.

    Returns its descriptor. `check` is called while it waits. Raises OSError.
    """
    deadline = time.monotonic() + START_LOCK_TIMEOUT_SECONDS
    while True:
        fd = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            _wait_for_start_lock(fd, path, deadline, check)
            if not _is_same_file(fd, path):
                continue
            if lock_owner(fd, path) is None and not _make_private(fd, path):
                continue
            yield fd
            return
        finally:
            with contextlib.suppress(OSError):  # it was moved to its number for the master
                os.close(fd)


def lock_owner(fd: int, path: str) -> int | None:
    """Return the pid of the process that holds an open pidfile as a daemon does, or None.

    Raises NotAPidfileError if another program holds a lock.
    """
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _LOCK_OFFSET, _LOCK_BYTES, 0)
    kind, _, start, length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
    if kind == fcntl.F_UNLCK:
        return None
    if (kind, start, length) != (fcntl.F_WRLCK, _LOCK_OFFSET, _LOCK_BYTES) or pid < 0:
        raise locked_by_another(path, pid)
    if pid == 0:
        text = "locked by a daemon in another PID namespace (container)"
        raise NotAPidfileError(errno.EBUSY, text, path)
    return int(pid)


def locked_by_another(path: str, pid: int) -> NotAPidfileError:
    """Return the error for a pidfile that a program other than a daemon has locked."""
    owner = f"pid {pid}" if pid > 0 else "pid unknown"
    return NotAPidfileError(errno.EBUSY, f"locked by another program ({owner})", path)


def claim(fd: int) -> None:
    """Take the record lock for this process, write its pid, and release the start lock.

    From here on, this process must not close any descriptor of the file: that releases the record
    lock. Raises NotAPidfileError if another process holds it.
    """
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        path = "daemon.pidfile"  # there is no /proc
    try:
        _lock(fd, path)
    except BlockingIOError:
        raise locked_by_another(path, lock_owner(fd, path) or 0) from None
    os.ftruncate(fd, 0)
    try:
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    fcntl.flock(fd, fcntl.LOCK_UN)


def require_locks(fd: int, path: str) -> None:
    """Take both locks on an open file. Raises OSError, with the path, if that is not possible."""
    _lock_against_starts(fd, path)
    _lock(fd, path)


def _lock(fd: int, path: str) -> None:
    with _refusal_explained(path):
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _LOCK_OFFSET)


def _lock_against_starts(fd: int, path: str) -> None:
    with _refusal_explained(path):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _refusal_explained(path: str) -> Iterator[None]:
    """Name the file in the error of a file system without locks, such as some network ones."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        text = f"the file system refuses locks ({reason_of(error)})"
        raise OSError(errno.ENOLCK, text, path) from None


def relock(fd: int, path: str) -> bool:
    """Take the start lock again; tell whether no other daemon has started since it was released."""
    deadline = time.monotonic() + START_LOCK_TIMEOUT_SECONDS
    try:
        _wait_for_start_lock(fd, path, deadline, lambda: None)
        return _is_same_file(fd, path) and lock_owner(fd, path) is None
    except NotAPidfileError:
        return False


def _open(path: str, flags: int) -> int:
    """Open a pidfile. Raises OSError, and NotAPidfileError for every other kind of file."""
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, MODE)
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


def _wait_for_start_lock(fd: int, path: str, deadline: float, check: Callable[[], object]) -> None:
    """Take the start lock. Raises NotAPidfileError if another program holds it for too long."""
    while True:
        try:
            _lock_against_starts(fd, path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise locked_by_another(path, _start_lock_owner(fd)) from None
            check()
            time.sleep(_POLL_SECONDS)
        else:
            return


def _start_lock_owner(fd: int) -> int:
    """Return the pid of the process that took the start lock; 0 if the kernel does not show it."""
    inode = os.fstat(fd).st_ino
    with contextlib.suppress(OSError):
        owners = (one.pid for one in _locks() if (one.kind, one.inode) == ("FLOCK", inode))
        return next(owners, 0)
    return 0


def _state_of_unreadable(path: str, error: OSError) -> PidfileState:
    """Return the state of a pidfile without opening it; raise the error if that is not possible."""
    status = os.stat(path, follow_symlinks=False)
    try:
        locks = _locks()
    except OSError:
        raise error from None
    pids = [one.pid for one in locks if _is_daemons(one) and one.inode == status.st_ino]
    pid = next(iter(pids), None)
    return PidfileState(pid, is_stale=pid is None and status.st_size > 0)


def _locks() -> list[_Lock]:
    """Return the locks of all processes of this PID namespace. Raises OSError if /proc lacks it."""
    with open(_LOCKS, encoding="ascii") as file:
        rows = [line.split() for line in file]
    # 1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 0 EOF; `->` marks a process that waits for a lock.
    return [
        _Lock(kind, mode, int(pid), int(inode.rpartition(":")[2]), first, last)
        for _, kind, _, mode, pid, inode, first, last in (row for row in rows if len(row) == 8)  # noqa: PLR2004
    ]


def _is_daemons(lock: _Lock) -> bool:
    byte = str(_LOCK_OFFSET)
    return (lock.kind, lock.mode, lock.first, lock.last) == ("POSIX", "WRITE", byte, byte)


def _make_private(fd: int, path: str) -> bool:
    """Let no other user open the file; False if it was another user's and has been removed."""
    status = os.fstat(fd)
    if status.st_uid == os.geteuid():
        if stat.S_IMODE(status.st_mode) & ~MODE:
            os.fchmod(fd, MODE)
        return True
    try:
        os.unlink(path)
    except PermissionError:
        return True  # in a folder that is not this user's either
    return False


def _is_same_file(fd: int, path: str) -> bool:
    """Tell whether the path still names the open file: a daemon that stops removes its pidfile."""
    ours = os.fstat(fd)
    try:
        theirs = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
