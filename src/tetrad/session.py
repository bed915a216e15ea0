"""One session: a client's socket, its deadlines, and the goodbye.

Runs in a handler. It serves, it tells the journal, and it always ends: by the client, by a
deadline, or because the master says so or is gone. It never looks at anything but its client, the
lifeline and the journal.
"""

from __future__ import annotations

import _socket
import errno
import select
import time

from tetrad import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.lifeline import Lifeline
    from tetrad.plan import SessionPlan
    from tetrad.services import Service

RECEIVE_BYTES = 16384

DRAIN_SECONDS = 1.0
"""How long a closed session waits for the client's own end before it closes for good."""

_NEVER = float("inf")

_GONE = {
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ECONNABORTED,
}


class Ended(Exception):  # noqa: N818 - the end of a session is no error
    """The session is over; `reason` is the log's word for why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Session:
    """A client being served. `serve` is the whole of it and returns when the socket is closed."""

    def __init__(
        self,
        client: _socket.socket,
        plan: SessionPlan,
        lifeline: Lifeline,
        journal: events.Journal,
    ) -> None:
        self._client = client
        self._plan = plan
        self._lifeline = lifeline
        self._journal = journal
        self._poll = select.poll()
        self._poll.register(client.fileno(), select.POLLIN)
        self._poll.register(lifeline.fd, select.POLLIN)
        self._began = time.monotonic()
        self._last_command: float | None = None
        self._leave_by = _after(self._began, plan["max_duration"])
        self._leave_reason = "max_duration"
        self._bytes_in = 0
        self._bytes_out = 0
        self._commands = 0

    def serve(self, service: Service) -> None:
        """Serve the client until the session ends, say goodbye, and log both ends of it."""
        self._journal.event("info", events.CLIENT_CONNECTED)
        reason, detail = self._run(service)
        self._say_goodbye(reason)
        self._journal.event(
            "info",
            events.CLIENT_DISCONNECTED,
            reason=reason,
            duration=round(time.monotonic() - self._began, 6),
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            commands=self._commands,
            **detail,
        )
        self._journal.flush()

    def _run(self, service: Service) -> tuple[str, dict[str, object]]:
        """Converse, and return why it ended and what more there is to say about that."""
        try:
            return self._converse(service), {}
        except Ended as ended:
            return ended.reason, {}
        except OSError as error:
            if error.errno in _GONE:
                return "reset", {}
            return "error", {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - a defect ends one session, in the log
            return "error", {"error": repr(error)}

    def _converse(self, service: Service) -> str:
        discarding = False
        while True:
            data = self._receive()
            if data == b"":
                service.finish(self)
                return "eof"
            if data is None:
                discarding = False  # all that had arrived is gone
            elif not discarding:
                discarding = service.take(self, data)
            if discarding:
                self._hear(0.0)
            else:
                self._await_input(service)

    def count_command(self) -> None:
        """Take note of a command that was answered."""
        self._commands += 1
        self._last_command = time.monotonic()

    def count_activity(self) -> None:
        """Take note of something said that is not a command."""
        self._last_command = time.monotonic()

    def log(self, level: str, event: str, **fields: object) -> None:
        """Tell the journal."""
        self._journal.event(level, event, **fields)

    def _receive(self) -> bytes | None:
        """Return what is there: b"" at the end, None if there is nothing yet."""
        try:
            data = self._client.recv(RECEIVE_BYTES, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        self._bytes_in += len(data)
        return data

    def send(self, data: bytes) -> None:
        """Send all of it, as fast as the client reads."""
        while True:
            try:
                sent = self._client.send(data, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            self._bytes_out += sent
            if sent == len(data):
                return
            data = data[sent:]
            self._await_room()

    def _await_input(self, service: Service) -> None:
        """Wait for the client; an order to stop ends a session that is between commands."""
        self._journal.flush()
        while True:
            if self._is_stopping() and not service.unfinished:
                raise Ended("stopping")
            if self._last_command is None:
                timeout, reason = self._plan["first_command_timeout"], "first_command_timeout"
            else:
                timeout, reason = self._plan["idle_timeout"], "idle_timeout"
            if self._wait(_after(self._last_command or self._began, timeout), reason):
                return

    def _await_room(self) -> None:
        """Wait until the client has read some of what was sent."""
        self._journal.flush()
        fd = self._client.fileno()
        self._poll.modify(fd, select.POLLOUT)
        deadline = _after(time.monotonic(), self._plan["send_timeout"])
        while not self._wait(deadline, "send_timeout"):
            self._is_stopping()
        self._poll.modify(fd, select.POLLIN)

    def _wait(self, deadline: float, reason: str) -> bool:
        """Wait for the client; False when something else happened. Raises Ended at the deadline."""
        now = time.monotonic()
        if now >= deadline:
            raise Ended(reason)
        last = min(deadline, self._leave_by)
        return self._hear(None if last == _NEVER else last - now)

    def _hear(self, seconds: float | None) -> bool:
        """Listen to client and master; True if the client is ready. Raises Ended when it must."""
        ready = dict(self._lifeline.wait(self._poll, seconds))
        heard = ready.pop(self._lifeline.fd, 0)
        if heard & ~select.POLLIN:
            raise Ended("stopping")
        if heard:
            self._lifeline.stopping = True
        if time.monotonic() >= self._leave_by:
            raise Ended(self._leave_reason)
        return bool(ready)

    def _is_stopping(self) -> bool:
        """Tell whether we are to finish; from the first time on there is a last moment for it."""
        if self._lifeline.stopping and self._leave_reason != "stopping":
            by = time.monotonic() + self._lifeline.grace
            self._leave_by, self._leave_reason = min(self._leave_by, by), "stopping"
            # Its byte stays in the lifeline: listen for nothing but its end.
            self._poll.modify(self._lifeline.fd, 0)
        return self._lifeline.stopping

    def _say_goodbye(self, reason: str) -> None:
        """Close so that the last answer arrives.

        A socket that is closed with input unread sends a reset, which can destroy an answer that
        the client has not read yet: so end our side, read the client's to its end, then close.
        Other ends than `quit` come long after the last answer, and have no time to spend.
        """
        try:
            if reason == "quit":
                self._client.shutdown(_socket.SHUT_WR)
                self._drain()
            elif reason in {"stopping", "max_duration"}:
                self._receive()
        except (OSError, Ended):
            pass  # there is nobody left to be polite to
        self._client.close()

    def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._receive() != b"":
            self._is_stopping()
            self._wait(deadline, "drained")


def _after(moment: float, seconds: float | None) -> float:
    return _NEVER if seconds is None else moment + seconds
