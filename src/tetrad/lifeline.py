"""How a handler hears of its master: a pipe of which the master holds the other end."""

from __future__ import annotations

from tetrad.timers import LONGEST_WAIT_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select


class Stopping(Exception):  # noqa: N818 - an order, not an error
    """Raised out of a wait by the signal that ends this handler."""


class Lifeline:
    """The pipe, and a wait that ends when it says so. `grace` is what it leaves us, in seconds.

    A byte in it, which nobody reads: finish and go. Its end: go now. A signal to this one process
    says the same as the byte.
    """

    __slots__ = ("_waiting", "fd", "grace", "stopping")

    def __init__(self, fd: int, grace: float) -> None:
        self.fd = fd
        self.grace = grace
        self.stopping = False
        self._waiting = False

    def on_signal(self, _number: int, _frame: object) -> None:
        """Take note, and wake up a wait that is under way."""
        self.stopping = True
        if self._waiting:
            raise Stopping

    def wait(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        """Poll, but not past an order to stop, for which the answer is an empty list."""
        before = self.stopping
        try:
            self._waiting = not before
            if self.stopping != before:
                return []
            if seconds is None:
                return poll.poll()
            # Who waits looks at the clock, and waits again.
            return poll.poll(min(max(0.0, seconds), LONGEST_WAIT_SECONDS) * 1000)
        except Stopping:
            return []
        finally:
            self._waiting = False
