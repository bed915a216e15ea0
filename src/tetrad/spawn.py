"""The only place that forks: what every child closes, resets, and ends with.

A child never returns through its parent's stack, keeps none of its descriptors but the ones it is
given, and has its signals blocked until it has handlers of its own.
"""

from __future__ import annotations

import os

from tetrad.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Work = Callable[[], object]

ORDERS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1}
"""The signals that mean something to the master; a handler knows only SIGTERM."""

FAILED = 70
"""Exit status of a child that ended by a defect (EX_SOFTWARE); nobody can see it but strace."""

_FIRST = 3
_FOR_THE_MASTER = ORDERS - {signal.SIGTERM}


def fork(work: Work, keep: Sequence[int], highest: int) -> int:
    """Fork a child that does `work` with the descriptors `keep`, and return its pid.

    `keep` stands at 3 and above in the child; everything else up to `highest` is closed.
    Raises OSError.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(work, keep, highest)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)


def accept_termination(on_signal: Callable[[int, object], None]) -> None:
    """Be a process of its own: SIGTERM is ours now, the master's other signals stay blocked."""
    signal.signal(signal.SIGTERM, on_signal)
    signal.pthread_sigmask(signal.SIG_SETMASK, _FOR_THE_MASTER)


def run_program(command: list[str], keep: Sequence[int], highest: int) -> int:
    """Fork and exec a program of ours, and return its pid. Raises OSError if it cannot fork."""

    def execute() -> None:
        for number in ORDERS | {signal.SIGCHLD}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for fd in range(_FIRST, _FIRST + len(keep)):
            os.set_inheritable(fd, True)
        os.execv(command[0], command)

    return fork(execute, keep, highest)


def _be_child(work: Work, keep: Sequence[int], highest: int) -> None:
    try:
        # Signals sent to the child must not be told to the parent, whose pipe this still is.
        signal.set_wakeup_fd(-1)
        _keep_only(keep, highest)
        work()
        os._exit(0)
    finally:
        os._exit(FAILED)


def _keep_only(keep: Sequence[int], highest: int) -> None:
    """Move `keep` to 3 and above, in order, and close the rest.

    No descriptor stands below its place, so moving one down never hits another to be moved.
    """
    for place, fd in enumerate(keep, _FIRST):
        if fd != place:
            os.dup2(fd, place, inheritable=False)
    os.closerange(_FIRST + len(keep), highest + 1)
