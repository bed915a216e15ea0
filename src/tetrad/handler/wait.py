"""Waiting for a client: until it speaks, until it reads, and never beyond a deadline.

Runs in a handler, once its session has turned out to be one that takes a while. While it waits it
hears the master, too: an order to stop, or the end of it.
"""

from __future__ import annotations

import errno
import os
import select
import time

from tetrad.system.timers import LONGEST_WAIT_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.shutdown_pipe import ShutdownPipe

NEVER = float("inf")

_STOPPING = "stopping"


class SessionEnded(Exception):  # noqa: N818 - the end of a session is no error
    """The session is over; `reason` is the log's word for why, `detail` what more it is told."""

    def __init__(self, reason: str, **detail: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class ClientWait:
    """Waits for the socket `fd`. All moments are in seconds of the monotonic clock.

    Every wait raises Ended at its deadline, when the session has lasted until `leave_by`, and when
    the master is gone. What has come by a deadline is heard, though we may be late ourselves; once,
    so that nobody who never pauses outlasts it.
    """

    __slots__ = ("_fd", "_leave_by", "_leave_reason", "_missed", "_poll", "_shutdown_pipe")

    def __init__(self, fd: int, shutdown_pipe: ShutdownPipe, leave_by: float) -> None:
        self._fd = fd
        self._shutdown_pipe = shutdown_pipe
        self._leave_by = leave_by
        self._leave_reason = "max_duration"
        self._missed: float | None = None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(shutdown_pipe.fd, select.POLLIN)

    def for_input(self, deadline: float, reason: str) -> bool:
        """Wait for the client to speak or leave; False when something else has happened."""
        now = time.monotonic()
        if now >= deadline:
            if deadline == self._missed:
                raise SessionEnded(reason)
            self._missed = deadline
        ready = self._hear(min(deadline, self._leave_by) - now)
        if not ready and time.monotonic() >= deadline:
            raise SessionEnded(reason)
        return bool(ready)

    def for_writable(self, deadline: float, reason: str) -> None:
        """Wait for the client to read."""
        self._poll.modify(self._fd, select.POLLOUT)
        try:
            while not self.for_input(deadline, reason):
                self.is_stopping()
        finally:
            self._poll.modify(self._fd, select.POLLIN)

    def for_fds(self, fds: tuple[int, ...], deadline: float) -> list[int]:
        """Wait for other descriptors while the client waits for us; return those that are ready.

        At the deadline, and when the master says something, there may be none. A client that has
        ended only its own side still waits. Raises ConnectionResetError if it has hung up.
        """
        self._poll.modify(self._fd, 0)
        for fd in fds:
            self._poll.register(fd, select.POLLIN)
        try:
            ready = self._hear(min(deadline, self._leave_by) - time.monotonic())
        finally:
            for fd in fds:
                self._poll.unregister(fd)
            self._poll.modify(self._fd, select.POLLIN)
        self.is_stopping()
        if self._fd in ready:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return list(ready)

    def check(self) -> None:
        """Do not wait, but end if it is time to."""
        self.is_stopping()
        self._hear(0.0)

    def is_stopping(self) -> bool:
        """Tell whether we are to finish; from the first time on there is a last moment for it."""
        if self._shutdown_pipe.stopping and self._leave_reason != _STOPPING:
            by = time.monotonic() + self._shutdown_pipe.grace
            self._leave_by, self._leave_reason = min(self._leave_by, by), _STOPPING
            # Its byte stays in the lifeline: listen for nothing but its end.
            self._poll.modify(self._shutdown_pipe.fd, 0)
        return self._shutdown_pipe.stopping

    def _hear(self, seconds: float) -> dict[int, int]:
        """Listen to the master and to others; return which of these are ready, and for what."""
        # Who waits looks at the clock, and waits again.
        milliseconds = min(max(0.0, seconds), LONGEST_WAIT_SECONDS) * 1000
        knows = self._leave_reason == _STOPPING
        ready = dict(self._shutdown_pipe.wait(self._poll, milliseconds, is_stopping=knows))
        heard = ready.pop(self._shutdown_pipe.fd, 0)
        if heard & ~select.POLLIN:
            raise SessionEnded(_STOPPING)
        if heard:
            self._shutdown_pipe.stopping = True
        if time.monotonic() >= self._leave_by:
            raise SessionEnded(self._leave_reason)
        return ready


def after(moment: float, seconds: float | None) -> float:
    """Return the moment so many seconds later; with None there is none."""
    return NEVER if seconds is None else moment + seconds
