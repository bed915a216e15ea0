"""The master's ear for signals: the interpreter writes their numbers into a pipe of ours."""

from __future__ import annotations

import os

from tetrad.system import fork
from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tetrad.system.event_loop import EventLoop

    Handler = Callable[[int, FrameType | None], object]

_MOST = 512


class Signals:
    """Calls `obey` with the number of each signal, from the loop.

    What is to happen at once when a handler gets SIGTERM is `terminate`. It is made known here
    already: done in each handler, it would be code that the master never runs, and is never warm.
    """

    def __init__(self, loop: EventLoop, obey: Callable[[int], object], terminate: Handler) -> None:
        self._loop = loop
        self._on_signal = obey
        self._terminate = terminate
        self._pipe = -1

    def install(self) -> None:
        """Begin, with those that have waited for us."""
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        os.set_blocking(theirs, False)
        self._loop.track_fd(theirs)
        self._loop.watch(self._pipe, self._on_readable)
        signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        for number in fork.MASTER_SIGNALS:
            signal.signal(number, _do_nothing)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def requeue(self) -> None:
        """Keep those that were noted and not obeyed for the program that this process becomes.

        To be called with signals_blocked: sent once more, they wait for whoever lets them through.
        """
        try:
            noted = os.read(self._pipe, _MOST)
        except BlockingIOError:
            return
        for number in noted:
            signal.raise_signal(number)

    def _on_readable(self, fd: int) -> None:
        for number in os.read(fd, _MOST):
            self._on_signal(number)


def _do_nothing(_number: int, _frame: object) -> None:
    """The interpreter tells the wakeup pipe only of signals that have a handler."""
