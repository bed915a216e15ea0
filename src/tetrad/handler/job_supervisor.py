"""The keeper: stands between a handler and the one program that it runs, and leaves nothing of it.

A process of its own, so that a handler that is killed does not leave its program behind. It is the
reaper of whatever the program starts and abandons, whichever session or group that is in, and kills
all of it when the program has ended, and when the handler hangs up or is gone. If the keeper itself
is killed, its program dies by the kernel's hand, and the handler, a reaper too, kills the rest.

What only a control group could hold is a program that is left when handler and keeper are killed at
once: the program itself dies even then, but what it has started may live.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import sys
import time

from tetrad.handler import python_call
from tetrad.system import fork
from tetrad.system.lean_signal import signal
from tetrad.system.proctitle import ProcessTitle
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.extension import Context
    from tetrad.ipc.runtime_config import JobConfig

CONTROL = 3
"""Where the keeper and its program hear of the handler, and tell it how the program fares."""

ENDED, NOT_STARTED, RAISED = b"s", b"e", b"x"
"""What a message to the handler begins with: a wait status, why none, or what was raised."""

NOT_EXECUTED = 127
"""Exit status of who could not become the program."""

ORPHAN_SECONDS = 1.0
"""How often it is looked whether something that the program has abandoned has ended."""

DESCRIPTORS = 1024
"""How many a program may have open unless it asks for more, as everywhere else."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_SHORTEST_NAP_SECONDS, _LONGEST_NAP_SECONDS = 0.0005, 0.05
_EVERY_DESCRIPTOR = 1 << 30


def adopt_orphans() -> None:
    """Be the parent of all descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_children(seconds: float) -> bool:
    """Kill and reap children, and those that become ours by that; False if some are left.

    One that waits for a disk, say, is killed only when that is over.
    """
    deadline, nap = time.monotonic() + seconds, _SHORTEST_NAP_SECONDS
    while True:
        for pid in _children():
            _kill(pid)
        if not _reap():
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP_SECONDS)


def keep(places: tuple[int, int, int, int], config: JobConfig, context: Context) -> None:
    """Run a program, or a function, until it has ended or the handler hangs up.

    `places` are its standard input, output and error and the socket to the handler, for descriptors
    0 to 3. To be called in a child that is forked for it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _take(places)
    ProcessTitle().show(f"keeper of {context.command} for {context.client}".encode())
    adopt_orphans()
    try:
        status = _watch(config, context)
    except OSError as error:
        os.write(CONTROL, NOT_STARTED + reason_of(error).encode())
    else:
        end_children(float("inf"))
        if status is not None:
            os.write(CONTROL, b"%b%d" % (ENDED, status))


def _take(places: tuple[int, int, int, int]) -> None:
    """Have these descriptors at 0 to 3, and no other. None of them is there already."""
    for place, fd in enumerate(places):
        os.dup2(fd, place, inheritable=place != CONTROL)
    os.closerange(CONTROL + 1, _EVERY_DESCRIPTOR)


def _watch(config: JobConfig, context: Context) -> int | None:
    """Start it, and wait for its end; return its wait status, None if the handler was first.

    Raises OSError if it cannot be started.
    """
    keeper = os.getpid()
    pid = fork.fork_child(lambda: _become(config, context, keeper))
    pidfd = os.pidfd_open(pid)
    # The pipes end with the program: we have no part in them.
    os.dup2(0, 1)
    os.dup2(0, 2)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(CONTROL, select.POLLIN)
    ready: dict[int, int] = {}
    while not ready:
        ready = dict(poll.poll(ORPHAN_SECONDS * 1000))
        _reap_orphans(pid)
    return os.waitpid(pid, 0)[1] if pidfd in ready else None


def _become(config: JobConfig, context: Context, keeper: int) -> None:
    """Be the program or the function, with nothing of a handler's."""
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        return
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _limit_descriptors()
    if config["kind"] == "call":
        _call(config["target"], context)
    else:
        _execute(config, context)


def _limit_descriptors() -> None:
    """Take back what the daemon has made possible for itself: some programs try all of them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most > DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, most))


def _execute(config: JobConfig, context: Context) -> None:
    own = {
        "TETRAD_CLIENT": context.client,
        "TETRAD_CONNECTION": context.connection,
        "TETRAD_COMMAND": context.command,
    }
    try:
        os.execve(config["target"], config["arguments"], config["environment"] | own)
    except OSError as error:
        os.write(CONTROL, NOT_STARTED + reason_of(error).encode())
        os._exit(NOT_EXECUTED)


def _call(target: str, context: Context) -> None:
    """Call the function. What it prints is not its answer: it goes where its errors do."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    gc.enable()
    ProcessTitle().show(f"{context.command} for {context.client}".encode())
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = python_call.call(target, context)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:  # noqa: BLE001 - whatever it raises, the log will say it
        os.write(CONTROL, RAISED + python_call.describe(error).encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    while answer:
        answer = answer[os.write(answers, answer) :]


def _reap_orphans(program: int) -> None:
    """Reap what a program has left to us and has ended; the program itself has its turn later."""
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == program:
            return
        os.waitpid(ended.si_pid, 0)


def _prctl(option: int, value: int) -> None:
    import ctypes  # noqa: PLC0415 - as much as the rest of the master, for which each fork pays

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _children() -> list[int]:
    """Return our children, as far as the kernel can tell at this moment."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:  # a kernel without this, or no /proc
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass  # somebody has reaped it, or it has become another user


def _reap() -> bool:
    """Reap children that have ended; True if others are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
