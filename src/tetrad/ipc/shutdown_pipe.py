"""How a handler hears of its master: a pipe of which the master holds the other end."""

from __future__ import annotations

import select

from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from types import FrameType


_set_wakeup_fd, _sigmask = signal.set_wakeup_fd, signal.pthread_sigmask
_UNBLOCK = signal.SIG_UNBLOCK
"""All of the module that a handler needs: the module itself would be one more page to copy."""

HANDLER_SIGNALS = frozenset({signal.SIGTERM})


class StopRequested(Exception):  # noqa: N818 - an order, not an error
    """Raised out of a wait by the signal that ends this handler."""


class ShutdownPipe:
    """The pipe, and a wait that ends when it says so. `grace` is what it leaves us, in seconds.

    A byte in it, which nobody reads: finish and go. Its end: go now. A signal to this one process
    says the same as the byte, once it `is_heard`: these are `signals`. `poll` listens to the pipe.

    It is made in the master, and `on_signal` is made known there, so that a handler finds all of
    that ready.
    """

    __slots__ = ("_signals", "_waiting", "fd", "grace", "poll", "signals_unblocked", "stopping")

    def __init__(self, fd: int, grace: float, signals: AbstractSet[int] = HANDLER_SIGNALS) -> None:
        self.fd = fd
        self.grace = grace
        self.signals_unblocked = False
        self.stopping = False
        self._signals = signals
        self.poll = select.poll()
        self.poll.register(fd, select.POLLIN)
        self._waiting = False

    def unblock_signals(self) -> None:
        """Be a process of our own: SIGTERM is ours now, the master's other signals stay blocked."""
        self.signals_unblocked = True
        _set_wakeup_fd(-1)
        _sigmask(_UNBLOCK, self._signals)

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Take note, and wake up a wait that is under way."""
        self.stopping = True
        if self._waiting:
            raise StopRequested

    def wait(
        self, poll: select.poll, milliseconds: float | None, *, is_stopping: bool
    ) -> list[tuple[int, int]]:
        """Poll, but not past an order to stop, for which the answer is an empty list.

        Who knows of the order already, and `is_stopping`, polls on.
        """
        try:
            self._waiting = not is_stopping
            if self.stopping and not is_stopping:
                return []
            return poll.poll(milliseconds)
        except StopRequested:
            return []
        finally:
            self._waiting = False
