"""The front of `tetrad run` on a terminal: the process that stays there, with the daemon below it.

A process can type into its controlling terminal (TIOCSTI in ioctl_tty(2)), and read what is typed.
So the daemon, whose user may be another one, is in a session without a terminal. The front keeps
the user that started it. It passes signals on, stops the daemon when the terminal hangs up, and
ends with it. If the front is killed, the kernel has the daemon stop (PR_SET_PDEATHSIG).

Without a controlling terminal, as in a unit of systemd, there is no front: the process of `tetrad
run` becomes the master.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING

from tetrad.system import fork

if TYPE_CHECKING:
    from collections.abc import Callable

_TERMINAL = "/dev/tty"
"""The controlling terminal of the process that opens it; an error for one that has none."""

_STDERR = 2
_READ_BYTES = 512


def open_terminal() -> int | None:
    """Open the controlling terminal, without waiting for a modem; None if there is none."""
    try:
        return os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None


def leave_terminal() -> None:
    """Leave the terminal; only standard error stays, for the log, and not for reading.

    To be called in a child, by the user who started it.
    """
    os.setsid()
    if os.isatty(_STDERR):
        with contextlib.suppress(OSError):  # a terminal that cannot be opened by its name
            fd = os.open(os.ttyname(_STDERR), os.O_WRONLY | os.O_NOCTTY)
            os.dup2(fd, _STDERR)
            os.close(fd)


def block_signals() -> None:
    """Block what `attend` handles; to be called before the daemon is forked."""
    # Ignored by inheritance, its exit status would be lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*fork.MASTER_SIGNALS, signal.SIGCHLD})


def attend(pid: int, terminal: int, send: Callable[[int, int], object]) -> int:
    """Pass signals on to the daemon until it has ended; return its exit status.

    That is the negative number of a signal that has killed it. `terminal` is the descriptor of
    `open_terminal`; `send` sends a pid, or the negative one of a process group, a signal.
    """
    # Behind nohup(1), which ignores SIGHUP, the daemon outlives the terminal.
    is_watched = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    signals = fork.open_exit_pipe()
    for handled in (*fork.MASTER_SIGNALS, signal.SIGTSTP):
        signal.signal(handled, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, fork.MASTER_SIGNALS)
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    if is_watched:
        poll.register(terminal, 0)  # a hang-up is reported all the same
    while True:
        ready = dict(poll.poll())
        if terminal in ready:
            poll.unregister(terminal)
            send(pid, signal.SIGTERM)
        for number in os.read(signals, _READ_BYTES) if signals in ready else b"":
            if number == signal.SIGCHLD:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status)
            elif number == signal.SIGTSTP:
                _suspend(pid, send)
            elif number == signal.SIGHUP and is_watched and _has_hung_up():
                send(pid, signal.SIGTERM)
            else:
                send(pid, number)


def _suspend(pid: int, send: Callable[[int, int], object]) -> None:
    """Suspend the daemon and this process, as Ctrl-Z does, until the shell continues this one.

    The kernel does not suspend this process if no shell could continue it.
    """
    send(-pid, signal.SIGSTOP)
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, _ignore)
    send(-pid, signal.SIGCONT)


def _has_hung_up() -> bool:
    """Tell whether the terminal is gone.

    It is also gone when the shell that it belonged to has ended, and something else keeps it open:
    the kernel then sends SIGHUP, and the terminal reports nothing.
    """
    terminal = open_terminal()
    if terminal is not None:
        os.close(terminal)
    return terminal is None


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: the interpreter writes only the numbers of signals that have a handler."""
