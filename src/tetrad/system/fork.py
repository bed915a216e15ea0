"""The only place where the master forks, and its children: what each of those closes and resets.

A child never returns through its parent's stack, keeps none of its descriptors but the ones it is
given, and has its signals blocked until it has seen to them.
"""

from __future__ import annotations

import os
from os import _exit, closerange, fork  # a module is one more page for each child to copy

from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVarTuple

    Ts = TypeVarTuple("Ts")

MASTER_SIGNALS = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
"""The signals that mean something to the master; a handler knows only SIGTERM."""

FAILED = 70
"""Exit status of a child that ended by a defect (EX_SOFTWARE); nobody can see it but strace."""

_FIRST = 3
_mask, _BLOCK, _SET = signal.pthread_sigmask, signal.SIG_BLOCK, signal.SIG_SETMASK


class SignalsBlocked:
    """While in this context the master's signals wait, so that no child ever takes one for it.

    A signal that arrived in a child would be told to the master: its wakeup pipe is the child's,
    too, until the child has seen to its own signals.
    """

    def __enter__(self) -> None:
        """Block them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, MASTER_SIGNALS)

    def __exit__(self, *_: object) -> None:
        """Let them through."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTER_SIGNALS)


signals_blocked = SignalsBlocked()


class AsIfForked(SignalsBlocked):
    """The same, for the master to do what a child does: its wakeup pipe is kept out of that."""

    def __enter__(self) -> None:
        """Block the signals, and put the pipe aside."""
        super().__enter__()
        self._wakeup = signal.set_wakeup_fd(-1)

    def __exit__(self, *_: object) -> None:
        """Put everything back."""
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        super().__exit__()


def fork_each(
    jobs: Iterable[tuple[int, Callable[[*Ts], object], tuple[*Ts]]],
    close_from: int,
    highest: int,
    on_failure: Callable[[BaseException], object],
) -> tuple[list[int], OSError | None]:
    """Fork children, each of which does a job and ends; return their pids.

    A job is a descriptor, a function and its arguments. A child keeps that descriptor and those
    below `close_from`; the others, up to `highest`, are closed. The master's signals stay blocked
    in it. A child whose function raises calls `on_failure` with the exception. If a fork fails, its
    error is the second result and the jobs behind it are not started.
    """
    pids: list[int] = []
    # As signals_blocked, but for what its functions would add to what each fork copies.
    before = _mask(_BLOCK, MASTER_SIGNALS)
    try:
        for own, work, arguments in jobs:
            pid = fork()
            if pid == 0:
                try:
                    closerange(close_from, own)
                    closerange(own + 1, highest + 1)
                    work(*arguments)
                    _exit(0)
                except BaseException as error:  # noqa: BLE001 - a defect, which ends this child
                    on_failure(error)
                finally:
                    _exit(FAILED)
            pids.append(pid)
    except OSError as error:
        return pids, error
    else:
        return pids, None
    finally:
        _mask(_SET, before)


def fork_child(work: Callable[[], object]) -> int:
    """Fork a child that does `work` and never returns; return its pid. Raises OSError."""
    pid = fork()
    if pid == 0:
        try:
            work()
            _exit(0)
        finally:
            _exit(FAILED)
    return pid


def run_program(
    command: list[str], keep: Sequence[int], highest: int, *, is_deaf: bool = False
) -> int:
    """Fork and exec a program of ours, and return its pid. Raises OSError if it cannot fork.

    It finds the descriptors `keep` at 3 and above. One that `is_deaf` heeds none of the master's
    signals, from its first moment on.
    """
    with signals_blocked:
        pid = os.fork()
        if pid == 0:
            try:
                _execute(command, keep, highest, signal.SIG_IGN if is_deaf else signal.SIG_DFL)
            finally:
                os._exit(FAILED)
    return pid


def has_ended(pid: int) -> bool:
    """Tell whether a child of ours has. Nobody else can have its pid as long as it has not."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a child of ours, if it has not ended; never to who may have its pid then."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # What we hold is the process that has the pid now; it is ours if it is our child.
        if not has_ended(pid):
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _execute(
    command: list[str], keep: Sequence[int], highest: int, disposition: signal.Handlers
) -> None:
    # No descriptor stands below its place, so moving one down never hits another to be moved.
    for place, fd in enumerate(keep, _FIRST):
        if fd != place:
            os.dup2(fd, place)
        os.set_inheritable(place, True)
    os.closerange(_FIRST + len(keep), highest + 1)
    signal.set_wakeup_fd(-1)
    for number in MASTER_SIGNALS:
        signal.signal(number, disposition)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execv(command[0], command)
