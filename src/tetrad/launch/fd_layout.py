"""From front to master: every descriptor put into its place, then exec."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import marshal
import os
import resource
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from tetrad.ipc import fds
from tetrad.launch import pidfile
from tetrad.system import exec_commands

if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import RuntimeConfig

EVENTS_PIPE_BYTES = 1 << 20
"""Room for some thousands of events while the logger is busy or being replaced."""


NO_STATE = marshal.dumps(None)
"""Stands behind the plan of a daemon that begins."""


class InheritedFds(NamedTuple):
    """The descriptors that the front has opened for the master."""

    pidfile: int
    control: int
    listeners: list[int]
    ready: int


def hand_over(config: RuntimeConfig, inherited: InheritedFds) -> None:
    """Put everything where the master finds it. Raises OSError, and all is where it was."""
    for stream in (0, 1, 2):
        # python-daemon opens the null device with close-on-exec where it stands already.
        os.set_inheritable(stream, True)
    _raise_descriptor_limit()
    events, journal = _pipe(blocking_writes=False)
    with contextlib.suppress(PermissionError):  # this user's pipes have their fill already
        fcntl.fcntl(journal, fcntl.F_SETPIPE_SZ, EVENTS_PIPE_BYTES)
    heard, notices = _pipe(blocking_reads=False)
    lifeline, held = _pipe()
    places = {
        fds.EVENTS_WRITE: journal,
        fds.NOTICES_WRITE: notices,
        fds.SHUTDOWN_READ: lifeline,
        fds.EVENTS_READ: events,
        fds.NOTICES_READ: heard,
        fds.SHUTDOWN_WRITE: held,
        fds.RUNTIME_CONFIG: _in_memory(marshal.dumps(dict(config)) + NO_STATE),
        fds.PIDFILE: inherited.pidfile,
        fds.CONTROL: inherited.control,
        fds.READY: inherited.ready,
        fds.LOG_COUNTERS: os.memfd_create("tally"),
    }
    put_into_place(places | dict(enumerate(inherited.listeners, fds.FIRST_LISTENER)))


def become_master() -> NoReturn:
    """Claim the pidfile, and become the master, for whom all is in its place. Raises OSError."""
    pidfile.take(fds.PIDFILE)
    command = exec_commands.command("master.process")
    # Symbols are bound once, here, and not again in every child.
    os.execve(command[0], command, os.environ | {"LD_BIND_NOW": "1"})


def put_into_place(places: dict[int, int]) -> None:
    """Move descriptors to their places, by way of where none of these places is.

    Raises OSError before anything is moved, if there is no room.
    """
    above = max(places) + 1
    parked: dict[int, int] = {}
    try:
        for place, fd in places.items():
            parked[place] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
    except OSError:
        for fd in parked.values():
            os.close(fd)
        # A number beyond what is allowed is called an invalid one.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
    for fd in places.values():
        os.close(fd)
    for place, fd in parked.items():
        os.dup2(fd, place, inheritable=True)
        os.close(fd)


def _pipe(*, blocking_reads: bool = True, blocking_writes: bool = True) -> tuple[int, int]:
    reads, writes = os.pipe()
    os.set_blocking(reads, blocking_reads)
    os.set_blocking(writes, blocking_writes)
    return reads, writes


def _in_memory(data: bytes) -> int:
    fd = os.memfd_create("plan")
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _raise_descriptor_limit() -> None:
    """The master has a descriptor for every handler."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
