"""Waits of a session: for input, for room to send, for other descriptors, never past a deadline.

Used by handlers whose session has left the fast path. Each wait also watches the shutdown pipe: a
request to stop, or the end of the master. Nothing here reads from the client or writes to it.
"""

from __future__ import annotations

import errno
import os
import select
import time

from tetrad.ipc.shutdown_pipe import STOPPING
from tetrad.system.timers import LONGEST_WAIT_SECONDS, NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.shutdown_pipe import ShutdownPipe


GAVE_WAY = "no command yet, and limits.clients is almost reached"
"""The log's `error` for a session that ended so that another client is served."""


class SessionEnded(Exception):  # noqa: N818 - the end of a session is no error
    """The session is over: the `reason` that the log gives, and further log fields in `detail`."""

    def __init__(self, reason: str, **detail: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class ClientWait:
    """Waits for the client's socket `fd`. All times are in seconds of the monotonic clock.

    Every wait raises SessionEnded at its own deadline, at the end of the session (`end_by`), and
    when the master is gone. Input that arrived by a deadline is still processed if this process got
    the processor late; but only once, so that a client that never pauses does not outlast the
    deadline.
    """

    __slots__ = (
        "_end_by",
        "_end_reason",
        "_fd",
        "_is_stopping",
        "_missed_deadline",
        "_poll",
        "_shutdown_pipe",
    )

    def __init__(self, fd: int, shutdown_pipe: ShutdownPipe, end_by: float) -> None:
        self._fd = fd
        self._shutdown_pipe = shutdown_pipe
        self._end_by = end_by
        self._end_reason = "max_duration"
        self._is_stopping = False
        self._missed_deadline: float | None = None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(shutdown_pipe.fd, select.POLLIN)

    def for_input(self, deadline: float, reason: str, wake_at: float = NEVER) -> bool:
        """Wait for input or the end of it; False if something else ended the wait, or at `wake_at`.

        Raises SessionEnded, with `reason` at the deadline.
        """
        now = time.monotonic()
        if now >= deadline:
            if deadline == self._missed_deadline:
                raise SessionEnded(reason)
            self._missed_deadline = deadline
        ready = self._poll_once(min(deadline, self._end_by, wake_at) - now)
        if not ready and time.monotonic() >= deadline:
            raise SessionEnded(reason)
        return bool(ready)

    def for_first_input(self, deadline: float, reason: str, wake_at: float) -> bool:
        """Wait as `for_input` for a client that has sent no command: it may have to give way."""
        pipe = self._shutdown_pipe
        pipe.may_give_way = True
        try:
            return self.for_input(deadline, reason, wake_at)
        finally:
            pipe.may_give_way = False

    def check_first(self, reason: str) -> None:
        """Raise SessionEnded if the client has to give way."""
        if self._shutdown_pipe.must_give_way:
            self._shutdown_pipe.must_give_way = False
            raise SessionEnded(reason, error=GAVE_WAY)

    def for_writable(self, deadline: float, reason: str) -> None:
        """Wait until the socket is writable. Raises SessionEnded, with `reason` at the deadline."""
        self._poll.modify(self._fd, select.POLLOUT)
        try:
            while not self.for_input(deadline, reason):
                self.is_stopping()
        finally:
            self._poll.modify(self._fd, select.POLLIN)

    def for_fds(self, fds: tuple[int, ...], deadline: float) -> list[int]:
        """Wait until other descriptors are readable; return those that are.

        The list may be empty: at the deadline, and after a request to stop. Raises SessionEnded,
        and ConnectionResetError if the client has closed both directions; a client that has closed
        only its own still waits for its answer.
        """
        self._poll.modify(self._fd, 0)
        for fd in fds:
            self._poll.register(fd, select.POLLIN)
        try:
            ready = self._poll_once(min(deadline, self._end_by) - time.monotonic())
        finally:
            for fd in fds:
                self._poll.unregister(fd)
            self._poll.modify(self._fd, select.POLLIN)
        self.is_stopping()
        if self._fd in ready:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return list(ready)

    def check(self) -> None:
        """Raise SessionEnded if the session has to end now; never wait."""
        self.is_stopping()
        self._poll_once(0.0)

    def is_stopping(self) -> bool:
        """Tell whether a request to stop has arrived; the first call starts the grace period."""
        if self._shutdown_pipe.stopping and not self._is_stopping:
            self._is_stopping = True
            by = time.monotonic() + self._shutdown_pipe.grace
            self._end_by, self._end_reason = min(self._end_by, by), self._shutdown_pipe.reason
            # The byte stays in the shutdown pipe: from now on only its end is of interest.
            self._poll.modify(self._shutdown_pipe.fd, 0)
        return self._shutdown_pipe.stopping

    @property
    def stop_reason(self) -> str:
        """Why the session ends after a request to stop."""
        return self._shutdown_pipe.reason

    def _poll_once(self, seconds: float) -> dict[int, int]:
        """Poll once, for at most `seconds`; return the ready descriptors with their events.

        The shutdown pipe is not among them. Raises SessionEnded.
        """
        # A longer wait ends early; the caller looks at the clock and waits again.
        milliseconds = min(max(0.0, seconds), LONGEST_WAIT_SECONDS) * 1000
        is_stopping = self._is_stopping
        ready = dict(self._shutdown_pipe.wait(self._poll, milliseconds, is_stopping=is_stopping))
        events = ready.pop(self._shutdown_pipe.fd, 0)
        if events & ~select.POLLIN:
            raise SessionEnded(STOPPING)
        if events:
            self._shutdown_pipe.stopping = True
        if time.monotonic() >= self._end_by:
            raise SessionEnded(self._end_reason)
        return ready


def deadline_after(moment: float, seconds: float | None) -> float:
    """Return the time `seconds` after `moment`; NEVER for None."""
    return NEVER if seconds is None else moment + seconds
