"""The last step of the launcher: every descriptor at the number of `tetrad.ipc.fds`, then exec."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import marshal
import os
import resource
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from tetrad.ipc import fds
from tetrad.ipc.log_counters import FILE_BYTES
from tetrad.launch import environment, pidfile
from tetrad.system import exec_commands, memory_file

if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import RuntimeConfig

LOG_PIPE_BYTES = 1 << 20
"""Room for some thousands of events while the logger is busy or being replaced."""

NO_STATE = marshal.dumps(None)
"""Follows the runtime configuration of a new daemon, where an upgrade has the saved state."""


class InheritedFds(NamedTuple):
    """The descriptors that the launcher has opened for the master."""

    pidfile: int
    control: int
    listeners: list[int]
    ready: int


def place_fds(config: RuntimeConfig, inherited: InheritedFds) -> None:
    """Create the pipes, and move every descriptor to the number where the master expects it.

    Raises OSError before any descriptor has moved.
    """
    for stream in (0, 1, 2):
        # python-daemon opens the null device at its final number, with close-on-exec.
        os.set_inheritable(stream, True)
    _raise_fd_limit()
    events_read, events_write = _pipe(blocking_writes=False)
    with contextlib.suppress(PermissionError):  # over the user's pipe-user-pages-soft (pipe(7))
        fcntl.fcntl(events_write, fcntl.F_SETPIPE_SZ, LOG_PIPE_BYTES)
    notices_read, notices_write = _pipe(blocking_reads=False)
    shutdown_read, shutdown_write = _pipe()
    targets = {
        fds.EVENTS_WRITE: events_write,
        fds.NOTICES_WRITE: notices_write,
        fds.SHUTDOWN_READ: shutdown_read,
        fds.EVENTS_READ: events_read,
        fds.NOTICES_READ: notices_read,
        fds.SHUTDOWN_WRITE: shutdown_write,
        fds.RUNTIME_CONFIG: memory_file.create_with(
            "runtime_config", marshal.dumps(dict(config)) + NO_STATE
        ),
        fds.PIDFILE: inherited.pidfile,
        fds.CONTROL: inherited.control,
        fds.READY: inherited.ready,
        fds.LOG_COUNTERS: memory_file.create("log_counters", FILE_BYTES),
    }
    move_fds(targets | dict(enumerate(inherited.listeners, fds.FIRST_LISTENER)))


def exec_master() -> NoReturn:
    """Claim the pidfile and execute the master, after `place_fds`. Raises OSError."""
    pidfile.claim(fds.PIDFILE)
    command = exec_commands.command("master.process")
    # Symbols are bound once, in the master, and not again in every child.
    variables = environment.of_daemon(os.environ) | {"LD_BIND_NOW": "1"}
    os.execve(command[0], command, variables)


def move_fds(targets: dict[int, int]) -> None:
    """Move descriptors (the values) to the numbers that are the keys, by way of higher numbers.

    Raises OSError before any descriptor has moved, if the limit of open files is too low.
    """
    first_free = max(targets) + 1
    copies: dict[int, int] = {}
    try:
        for target, fd in targets.items():
            copies[target] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first_free)
    except OSError:
        for fd in copies.values():
            os.close(fd)
        # fcntl(2) calls a number beyond the limit an invalid argument.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
    for fd in targets.values():
        os.close(fd)
    for target, fd in copies.items():
        os.dup2(fd, target, inheritable=True)
        os.close(fd)


def _pipe(*, blocking_reads: bool = True, blocking_writes: bool = True) -> tuple[int, int]:
    reads, writes = os.pipe()
    os.set_blocking(reads, blocking_reads)
    os.set_blocking(writes, blocking_writes)
    return reads, writes


def _raise_fd_limit() -> None:
    """Raise the limit of open files to the hard limit, for listeners, connections and handlers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
