"""One session: a client's socket, its conversation, and the goodbye.

Runs in a handler. It serves, it tells the journal, and it always ends: by the client, by a
deadline, or because the master says so or is gone. It never looks at anything but its client, the
lifeline and the journal.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
import time

from tetrad.handler.services import CONTINUE, DISCARD
from tetrad.handler.wait import ClientWait, SessionEnded, after
from tetrad.ipc import log_protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.handler.progress import SessionProgress
    from tetrad.handler.services import Service
    from tetrad.handler.tls_socket import TlsSocket
    from tetrad.ipc.runtime_config import SessionConfig
    from tetrad.ipc.shutdown_pipe import ShutdownPipe

DRAIN_SECONDS = 1.0
"""How long a closed session waits for the client's own end before it closes for good."""

YIELDS = 5
"""How much less important who talks nonsense is than everybody else, in nice(2)'s scale."""

_RECEIVE_BYTES = 16384

_LOOKS = 8
"""How often it is tried in `send_timeout` whether a client that takes nothing reads after all."""

_RESET = (1).to_bytes(4, sys.byteorder) + bytes(4)
"""A struct linger: on, for no time."""

_GONE = {
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ECONNABORTED,
}


class Session:
    """A client being served. `serve` is the whole of it and returns when the socket is closed.

    It `is_urgent` until the client has talked nonsense.
    """

    def __init__(
        self,
        client: _socket.socket | TlsSocket,
        config: SessionConfig,
        shutdown_pipe: ShutdownPipe,
        log: log_protocol.LogWriter,
        progress: SessionProgress,
    ) -> None:
        self._client = client
        self._config = config
        self._log = log
        self._progress = progress
        self._waiting = ClientWait(
            client.fileno(), shutdown_pipe, after(progress.since, config["max_duration"])
        )
        self.is_urgent = True
        self._last_command = progress.last_command

    def serve(self, service: Service) -> None:
        """Serve the client until the session ends, say goodbye, and log what there was of it."""
        progress = self._progress
        reason, detail = self._run(service)
        self._say_goodbye(reason)
        self._log.event(
            "info",
            log_protocol.CLIENT_DISCONNECTED,
            reason=reason,
            duration=round(time.monotonic() - progress.since, 6),
            bytes_in=progress.bytes_in,
            bytes_out=progress.bytes_out,
            commands=progress.commands,
            **detail,
        )
        self._log.flush()

    def _run(self, service: Service) -> tuple[str, dict[str, object]]:
        """Converse, and return why it ended and what more there is to say about that."""
        try:
            return self.converse(service), {}
        except SessionEnded as ended:
            return ended.reason, ended.detail
        except OSError as error:
            if error.errno in _GONE:
                return "reset", {}
            return "error", {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - a defect ends one session, in the log
            return "error", {"error": repr(error)}

    def converse(self, service: Service) -> str:
        """Go on from where it has begun, and return why it ended."""
        progress = self._progress
        if progress.error is not None:
            raise progress.error
        if progress.is_over:
            return "quit"
        verdict = service.take(self, progress.data) if progress.data else CONTINUE
        while verdict in {CONTINUE, DISCARD}:
            if verdict == DISCARD:
                self._yield()
                self._waiting.check()
            else:
                self._await_input(service)
            data = self._receive()
            if data == b"":
                return service.finish(self)
            if data is None:
                verdict = CONTINUE  # all that had arrived is gone
            elif verdict == CONTINUE:
                verdict = service.take(self, data)
        return verdict

    def _yield(self) -> None:
        """Be less important than those who make sense, once and for all.

        A hundred who talk nonsense without a pause would leave the master so little of the
        processors that newcomers wait. Where it is forbidden, only a courtesy is lost.
        """
        if self.is_urgent:
            self.is_urgent = False
            try:
                os.nice(YIELDS)
            except OSError:
                pass

    def discard(self) -> None:
        """Throw away all that has arrived."""
        while self._receive():
            self._waiting.check()

    def count_commands(self, count: int) -> None:
        """Take note of commands that were answered."""
        self._progress.commands += count
        self._last_command = time.monotonic()

    def count_activity(self) -> None:
        """Take note of something said that is not a command."""
        self._last_command = time.monotonic()

    def wait_for_fds(self, fds: tuple[int, ...], deadline: float) -> list[int]:
        """Wait for other descriptors than the client's, as `ClientWait.for_fds`."""
        self._log.flush()
        return self._waiting.for_fds(fds, deadline)

    def log_json(self, level: str, event: str, fields: str) -> None:
        """Tell the journal; `fields` are JSON."""
        self._log.event_json(level, event, fields)

    def send(self, data: bytes) -> None:
        """Send all of it, as fast as the client reads. Raises SessionEnded."""
        deadline: float | None = None
        while True:
            try:
                sent = self._client.send(data, _socket.MSG_DONTWAIT)
                deadline = None
            except BlockingIOError:
                sent = 0
                if deadline is not None and time.monotonic() >= deadline:
                    self._give_up()
                    raise SessionEnded("send_timeout") from None
            self._progress.bytes_out += sent
            if sent == len(data):
                return
            data = data[sent:]
            self._log.flush()
            if deadline is None:
                deadline = after(time.monotonic(), self._config["send_timeout"])
            self._await_room(deadline)

    def _await_room(self, deadline: float) -> None:
        """Wait for the client to read, until it is time to try whether it has. Raises SessionEnded.

        The kernel calls a socket writable when a third of what it holds is gone, megabytes maybe;
        who reads slowly makes room for a byte more long before.
        """
        timeout = self._config["send_timeout"]
        look = after(time.monotonic(), timeout and timeout / _LOOKS)
        try:
            self._waiting.for_writable(min(deadline, look), "send_timeout")
        except SessionEnded as ended:
            if ended.reason != "send_timeout":
                self._give_up()
                raise

    def _give_up(self) -> None:
        """Have the close be a reset: what is not read would stay in the kernel for minutes."""
        self._client.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)

    def _receive(self) -> bytes | None:
        """Return what is there: b"" at the end, None if there is nothing yet."""
        try:
            data = self._client.recv(_RECEIVE_BYTES, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        self._progress.bytes_in += len(data)
        return data

    def _await_input(self, service: Service) -> None:
        """Wait for the client; an order to stop ends a session that is between commands."""
        self._log.flush()
        while True:
            if self._waiting.is_stopping() and not service.unfinished:
                raise SessionEnded("stopping")
            if self._last_command is None:
                since, reason = self._progress.since, "first_command_timeout"
                seconds = self._config["first_command_timeout"]
            else:
                since, reason = self._last_command, "idle_timeout"
                seconds = self._config["idle_timeout"]
            if self._waiting.for_input(after(since, seconds), reason):
                return

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
            elif reason in {"stopping", "max_duration", "tls", "access"}:
                self._receive()
        except (OSError, SessionEnded):
            pass  # there is nobody left to be polite to
        self._client.close()

    def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._receive() != b"":
            self._waiting.is_stopping()
            self._waiting.for_input(deadline, "drained")
