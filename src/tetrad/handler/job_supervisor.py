"""The job supervisor: runs one job for a handler, and kills everything that the job started.

It is a process of its own, so that a job does not outlive a handler that is killed. It is the
subreaper of all descendants of the job, in whichever session or process group they are. It kills
them when the job ends, and when the handler closes its end of the socket between them or is gone.
If the supervisor itself is killed, the kernel kills the job, and the handler, a subreaper too,
kills the rest.

Only a control group could prevent this: if handler and supervisor are killed at the same moment,
the job dies, but processes that it started may stay.

The supervisor never talks to a client and never writes to the log.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import select
import sys
import time

from tetrad.handler import python_call
from tetrad.ipc.fds import NOTICES_WRITE
from tetrad.system import fork, landlock, open_fds
from tetrad.system.lean_signal import signal
from tetrad.system.proctitle import ProcessTitle
from tetrad.system.text import reason_of, with_limit_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.extension import Context
    from tetrad.ipc.runtime_config import JobConfig

HANDLER_SOCKET = 3
"""The descriptor of the socket to the handler, in the supervisor and in the job until it executes
its program. It carries messages to the handler; its end means that the handler closed it or is
gone."""

ENDED, NOT_STARTED, FAILED = b"s", b"e", b"x"
"""The first byte of a message: a wait status follows, why the job could not start, or any other
error."""

_SLOT_BITS = 20
"""A command has 2**20 slots: more than `max_running` can be."""

NOT_EXECUTED = 127
"""Exit status of a child that could not execute the program."""

MAX_OPEN_FILES = 1024
"""The soft limit on open files of a job, which may raise it: the usual default."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_MIN_SLEEP_SECONDS, _MAX_SLEEP_SECONDS = 0.0005, 0.05
_READ_BYTES = 512


def become_subreaper() -> None:
    """Become the parent of all descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_children(seconds: float) -> bool:
    """Kill and reap all children, and the orphans that they leave; False if some remain.

    A process in disk I/O, for example, ends only after that.
    """
    deadline, sleep = time.monotonic() + seconds, _MIN_SLEEP_SECONDS
    while True:
        for pid in _children():
            _kill(pid)
        if not fork.reap():
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(sleep)
        sleep = min(2 * sleep, _MAX_SLEEP_SECONDS)


def supervise(fds: list[int], config: JobConfig, context: Context) -> None:
    """Run a job until it ends or the handler closes its end of the socket.

    `fds` are the socket to the handler, and standard input, output and error. To be called in a
    child that was forked for it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _move_fds(fds)
    ProcessTitle().show(f"job supervisor: {context.command}, client {context.client}".encode())
    become_subreaper()
    try:
        most = config["max_running"]
        if most is not None and not _take_slot(most, context.command):
            os.write(HANDLER_SOCKET, FAILED + b"max_running (%d) is reached" % most)
            return
        status = _run(config, context)
    except OSError as error:
        os.write(HANDLER_SOCKET, NOT_STARTED + with_limit_hint(error).encode())
    else:
        kill_children(float("inf"))
        if status is not None:
            os.write(HANDLER_SOCKET, b"%b%d" % (ENDED, status))


def _move_fds(fds: list[int]) -> None:
    """Move these descriptors to their numbers, 0 to 3; close all others but the notice pipe."""
    socket, *standard = fds  # none of which is below 4
    for number, fd in enumerate([*standard, socket]):
        os.dup2(fd, number, inheritable=number != HANDLER_SOCKET)
    os.set_inheritable(NOTICES_WRITE, False)
    open_fds.close_all_but(range(NOTICES_WRITE + 1))


def _take_slot(most: int, command: str) -> bool:
    """Take one of the slots of a command until this process ends; False if all are taken.

    A slot is a record lock on a byte of the notice pipe, which all handlers of a daemon share, also
    after an upgrade, and no other user can open. The kernel releases it whatever ends this process,
    which ends after everything that the job has started.
    """
    first = int.from_bytes(command.encode(), "big") << _SLOT_BITS
    for slot in range(most):
        try:
            fcntl.lockf(NOTICES_WRITE, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, first + slot)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
        else:
            return True
    return False


def _run(config: JobConfig, context: Context) -> int | None:
    """Run the job; return its wait status, or None if the handler closed its end of the socket.

    Raises OSError if the job cannot be started.
    """
    supervisor = os.getpid()
    pid = fork.fork_child(lambda: _become_job(config, context, supervisor))
    exits = fork.open_exit_pipe()
    # Only the job holds the pipes open now, so they end with it.
    os.dup2(0, 1)
    os.dup2(0, 2)
    poll = select.poll()
    poll.register(exits, select.POLLIN)
    poll.register(HANDLER_SOCKET, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if exits in ready:
            os.read(exits, _READ_BYTES)
            status = _reap_until(pid)
            if status is not None:
                return status
        if HANDLER_SOCKET in ready:
            return None


def _become_job(config: JobConfig, context: Context, supervisor: int) -> None:
    """Become the program or call the function, with default signals and limits."""
    os.close(NOTICES_WRITE)
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        return  # it was killed before prctl(2)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _limit_resources(config)
    _confine()
    if config["kind"] == "call":
        _call(config["target"], context)
    else:
        _execute(config, context)


def _limit_resources(config: JobConfig) -> None:
    """Set the resource limits of the job, and of everything that it starts."""
    # The daemon has raised its soft limit, and some programs close every possible descriptor.
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES, resource.RLIM_INFINITY)
    for number, limit in (
        (resource.RLIMIT_AS, config["memory"]),
        (resource.RLIMIT_CPU, config["cpu"]),
        (resource.RLIMIT_FSIZE, config["file_size"]),
    ):
        if limit is not None:
            # SIGXCPU at the soft limit tells why; SIGKILL comes a second later.
            _limit(number, limit, limit + (number == resource.RLIMIT_CPU))


def _limit(number: int, soft: int, hard: int) -> None:
    """Lower the limits of a resource; those that are lower already stay."""
    pairs = zip((soft, hard), resource.getrlimit(number), strict=True)
    lower_soft, lower_hard = (min(pair, key=_without_sign) for pair in pairs)
    resource.setrlimit(number, (lower_soft, lower_hard))


def _without_sign(limit: int) -> int:
    """Return a limit as the kernel has it: infinity, which may be -1 in Python, is the largest."""
    return limit % (1 << 64)


def _confine() -> None:
    """Keep the job from tetrad's processes, of whose user it is, where the kernel can."""
    try:
        landlock.confine()
    except OSError:
        pass  # the launcher has logged that


def _execute(config: JobConfig, context: Context) -> None:
    own = {
        "TETRAD_CLIENT": context.client,
        "TETRAD_CONNECTION": context.connection,
        "TETRAD_COMMAND": context.command,
    }
    try:
        os.execve(config["target"], config["arguments"], config["environment"] | own)
    except OSError as error:
        os.write(HANDLER_SOCKET, NOT_STARTED + reason_of(error).encode())
        os._exit(NOT_EXECUTED)


def _call(target: str, context: Context) -> None:
    """Call the function. What it prints is not its answer: it goes to standard error."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # exceptions, as in every Python program
        signal.signal(number, signal.SIG_IGN)
    gc.enable()
    ProcessTitle().show(f"job: {context.command}, client {context.client}".encode())
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = python_call.call(target, context)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:  # noqa: BLE001 - whatever it raises is logged
        text = python_call.describe(error).encode("utf-8", "backslashreplace")
        os.write(HANDLER_SOCKET, FAILED + text)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    while answer:
        answer = answer[os.write(stdout, answer) :]


def _reap_until(job: int) -> int | None:
    """Reap the job, and return its wait status, or only orphans that it has left; then None."""
    pid = -1
    while pid:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == job:
            return status
    return None


def _prctl(option: int, value: int) -> None:
    """Set an option of this process. Raises OSError."""
    import ctypes  # noqa: PLC0415 - as large as the rest of the master, which forks

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number).lower()}")


def _children() -> list[int]:
    """Return the pids of our children that the kernel lists at this moment."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:  # a kernel without this file, or no /proc
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass  # it was reaped already, or runs as another user now
