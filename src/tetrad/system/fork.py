"""Fork the master's children, and execute programs in them.

A child never returns into its parent's code, keeps only the descriptors that it is given, and
starts with the master's signals blocked. This module knows nothing of handlers or of the log.
"""

from __future__ import annotations

import errno
import os
import time
from os import _exit, closerange, fork  # `os.fork` is one more page for each child to copy

from tetrad.system.lean_signal import signal
from tetrad.system.text import reason_of

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
"""The signals that the master handles; a handler handles SIGTERM only."""

EX_SOFTWARE = 70
"""Exit status of a child that failed by a defect, as in sysexits.h. Only strace(1) can show it."""

_STDERR = 2
_FIRST_FD = 3
_MIN_SLEEP_SECONDS, _MAX_SLEEP_SECONDS = 0.0002, 0.05
_mask, _BLOCK, _SET = signal.pthread_sigmask, signal.SIG_BLOCK, signal.SIG_SETMASK


class SignalsBlocked:
    """A context in which the master's signals are blocked, so that no child receives one.

    The child has a copy of the master's wakeup pipe until it resets its signals: the number of a
    signal that it received before that would be written to the master.
    """

    def __enter__(self) -> None:
        """Block the signals."""
        signal.pthread_sigmask(signal.SIG_BLOCK, MASTER_SIGNALS)

    def __exit__(self, *_: object) -> None:
        """Unblock the signals."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTER_SIGNALS)


signals_blocked = SignalsBlocked()


def fork_each(
    tasks: Iterable[tuple[int, Callable[[*Ts], object], tuple[*Ts]]],
    close_from: int,
    highest_fd: int,
    on_failure: Callable[[BaseException], object],
) -> tuple[list[int], OSError | None]:
    """Fork one child for each task; return their pids, and the error if a fork failed.

    A task is a descriptor, a function and its arguments. The child keeps that descriptor and those
    below `close_from`, closes the others up to `highest_fd`, calls the function and exits. The
    master's signals stay blocked in it. If the function raises, the child calls `on_failure` with
    the exception. After a fork that failed, no further task is started.
    """
    pids: list[int] = []
    # Not signals_blocked: each fork would copy the pages of its two methods.
    before = _mask(_BLOCK, MASTER_SIGNALS)
    try:
        for kept_fd, function, arguments in tasks:
            pid = fork()
            if pid == 0:
                try:
                    closerange(close_from, kept_fd)
                    closerange(kept_fd + 1, highest_fd + 1)
                    function(*arguments)
                    _exit(0)
                except BaseException as error:  # noqa: BLE001 - a defect, which ends this child
                    on_failure(error)
                finally:
                    _exit(EX_SOFTWARE)
            pids.append(pid)
    except OSError as error:
        return pids, error
    else:
        return pids, None
    finally:
        _mask(_SET, before)


def fork_child(function: Callable[[], object]) -> int:
    """Fork a child that calls `function` and exits; return its pid. Raises OSError."""
    pid = fork()
    if pid == 0:
        try:
            function()
            _exit(0)
        finally:
            _exit(EX_SOFTWARE)
    return pid


def run_program(
    command: list[str], keep: Sequence[int], highest_fd: int, stderr: int = _STDERR
) -> int:
    """Fork and execute a program of tetrad's; return its pid. Raises OSError if the fork fails.

    The program has the descriptors `keep` at 3 and above, `stderr` as its standard error, and no
    others up to `highest_fd`. It ignores the master's signals from its first instruction on. If it
    cannot be executed, its standard error has the reason.
    """
    with signals_blocked:
        pid = os.fork()
        if pid == 0:
            try:
                if stderr != _STDERR:
                    os.dup2(stderr, _STDERR)
                _execute(command, keep, highest_fd)
            except OSError as error:
                os.write(_STDERR, f"cannot execute {command[0]}: {reason_of(error)}\n".encode())
            finally:
                os._exit(EX_SOFTWARE)
    return pid


def has_exited(pid: int) -> bool:
    """Tell whether a child has exited; the kernel reaps it then, because SIGCHLD is ignored.

    As long as this is false, no other process can have the pid.
    """
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def wait_for_exit(pid: int, seconds: float) -> bool:
    """Wait until a child has exited, and reap it; False if it has not within `seconds`."""
    deadline, sleep = time.monotonic() + seconds, _MIN_SLEEP_SECONDS
    while not has_exited(pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(sleep)
        sleep = min(2 * sleep, _MAX_SLEEP_SECONDS)
    return True


def send_signal(pids: Iterable[int], number: int) -> None:
    """Send a signal to children that have not exited; never to another process with such a pid.

    For a process that ignores SIGCHLD: meanwhile a child that exits keeps its pid.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for pid in pids:
            if not has_exited(pid):
                os.kill(pid, number)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        reap()


def reap() -> bool:
    """Reap the children that have exited; True if others are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def open_pidfd(pid: int) -> int:
    """Return a pidfd, which is readable when the process has exited. Raises OSError.

    The error is ENOSYS if this interpreter was built without it.
    """
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None


def open_exit_pipe() -> int:
    """Return a descriptor that is readable when children have exited.

    For a child of the master that forks others. SIGCHLD must have been blocked before they were
    forked, and is unblocked here.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return read_end


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: the interpreter writes only the numbers of signals that have a handler."""


def _execute(command: list[str], keep: Sequence[int], highest_fd: int) -> None:
    # Every descriptor in `keep` is at its new number or above, so dup2 overwrites none of them.
    for number, fd in enumerate(keep, _FIRST_FD):
        if fd != number:
            os.dup2(fd, number)
        os.set_inheritable(number, True)
    os.closerange(_FIRST_FD + len(keep), highest_fd + 1)
    ignore_master_signals()
    os.execv(command[0], command)


def ignore_master_signals() -> None:
    """Ignore the master's signals, and unblock them; children can be waited for."""
    signal.set_wakeup_fd(-1)
    for number in MASTER_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
