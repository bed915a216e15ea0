"""The master's signals: the interpreter writes their numbers to a pipe for the event loop."""

from __future__ import annotations

import os

from tetrad.ipc.shutdown_pipe import DENIED, HANDLER_SIGNALS
from tetrad.system import fork
from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tetrad.system.event_loop import EventLoop

    SignalHandler = Callable[[int, FrameType | None], object]

_READ_BYTES = 512


class Signals:
    """Calls `on_signal` with the number of each signal, from the event loop.

    `in_handler` is what a handler process does when it gets one of its signals. It is installed in
    the master, because code that only handlers run would never be warm when they are forked.
    """

    def __init__(
        self, loop: EventLoop, on_signal: Callable[[int], object], in_handler: SignalHandler
    ) -> None:
        self._loop = loop
        self._on_signal = on_signal
        self._in_handler = in_handler
        self._pipe = -1

    def install(self) -> None:
        """Receive signals from now on, those that were blocked until now first."""
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        os.set_blocking(write_end, False)
        self._loop.track_fd(write_end)
        self._loop.watch(self._pipe, self._on_readable)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in fork.MASTER_SIGNALS:
            signal.signal(number, _ignore)
        for number in (*HANDLER_SIGNALS, DENIED):
            signal.signal(number, self._in_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def requeue(self) -> None:
        """Send this process again the signals in the pipe, for the program that it becomes.

        To be called while signals are blocked: they stay pending over the exec.
        """
        try:
            numbers = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return
        for number in numbers:
            signal.raise_signal(number)

    def _on_readable(self, fd: int) -> None:
        for number in os.read(fd, _READ_BYTES):
            self._on_signal(number)


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing: the interpreter writes only the numbers of signals that have a handler."""
