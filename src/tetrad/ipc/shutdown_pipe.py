"""The shutdown pipe: by it the master asks all handlers to stop, and handlers see the master's end.

The master holds the only write end. A byte in the pipe, which no handler reads, means: finish and
exit. The end of the pipe means: exit now.
"""

from __future__ import annotations

import select

from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from types import FrameType


_set_wakeup_fd, _sigmask = signal.set_wakeup_fd, signal.pthread_sigmask
_UNBLOCK = signal.SIG_UNBLOCK
"""All that a handler needs of the module; the module itself would be one more page to copy."""

GIVE_WAY = signal.SIGUSR2
"""The master sends it to a handler whose client has to go if it has sent no command yet."""

HANDLER_SIGNALS = frozenset({signal.SIGTERM, GIVE_WAY})

DENIED = signal.SIGURG
"""The master sends it to a handler whose client the access lists deny now.

A process without a handler for it ignores it, and nobody sends it by mistake.
"""

STOPPING = "stopping"
TERMINATED = "terminated"
ACCESS = "access"
"""Why a session ends by a request to stop: the daemon's, SIGTERM to its handler alone, DENIED."""


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """Raised by the signal handler to end a wait."""


class ShutdownPipe:
    """A handler's view of the pipe, and a wait that ends at a request to stop.

    `fd` is the read end, and `poll` watches it. `grace` is how many seconds a handler has after a
    request to stop. SIGTERM to this process, or DENIED, means the same as a byte in the pipe, once
    `signals` are unblocked. `stopping`: a request has arrived; `reason` is STOPPING, TERMINATED or
    ACCESS. GIVE_WAY ends only a wait during which the client `may_give_way`, and sets
    `must_give_way`.

    The master creates it and installs `on_signal`, so that each fork inherits both.
    """

    __slots__ = (
        "_is_waiting",
        "_signals",
        "fd",
        "grace",
        "may_give_way",
        "must_give_way",
        "poll",
        "reason",
        "signals_unblocked",
        "stopping",
    )

    def __init__(self, fd: int, grace: float, signals: AbstractSet[int] = HANDLER_SIGNALS) -> None:
        self.fd = fd
        self.grace = grace
        self.signals_unblocked = False
        self.stopping = False
        self.may_give_way = self.must_give_way = False
        self.reason = STOPPING
        self._signals = signals
        self.poll = select.poll()
        self.poll.register(fd, select.POLLIN)
        self._is_waiting = False

    def unblock_signals(self) -> None:
        """Unblock the handler's signals; the master's other signals stay blocked."""
        self.signals_unblocked = True
        _set_wakeup_fd(-1)
        _sigmask(_UNBLOCK, self._signals)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Record a request to stop or to give way, and end a wait."""
        if number == GIVE_WAY:  # in the master, it is the request for an upgrade
            if self.may_give_way and self._is_waiting:
                self.must_give_way = True
                self._is_waiting = False
                raise StopRequested
            return
        # In the master, whose signals a handler never unblocks, it is the request to the daemon.
        if self.signals_unblocked and not self.stopping:
            self.reason = TERMINATED
            if number == DENIED:
                self.reason = ACCESS
        elif number == DENIED:
            return
        self.stopping = True
        if self._is_waiting:
            self._is_waiting = False  # another signal may follow at once
            raise StopRequested

    def wait(
        self, poll: select.poll, milliseconds: float | None, *, is_stopping: bool
    ) -> list[tuple[int, int]]:
        """Poll, but only until a request to stop or to give way: the result is then an empty list.

        A caller that `is_stopping` knows of the request already, and polls on.
        """
        try:
            self._is_waiting = not is_stopping
            if self.stopping and not is_stopping:
                return []
            return poll.poll(milliseconds)
        except StopRequested:
            return []
        finally:
            self._is_waiting = False
