"""A session on the slow path: one client from its first unanswered input to the close.

A session reads, has a service process the input, sends and logs. It always ends: by the client, by
a deadline, by a request to stop, or when the master is gone. It uses its client's socket, the
shutdown pipe and the log, and nothing else.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
import time

from tetrad.handler.command_log import CommandLog
from tetrad.handler.services import CONTINUE, DISCARD
from tetrad.handler.wait import ClientWait, SessionEnded, deadline_after
from tetrad.ipc import log_protocol
from tetrad.ipc.exit_notices import REJECTED
from tetrad.ipc.shutdown_pipe import ACCESS, STOPPING, TERMINATED
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.handler.progress import SessionProgress
    from tetrad.handler.services import Service
    from tetrad.handler.tls_socket import TlsSocket
    from tetrad.ipc.runtime_config import SessionConfig
    from tetrad.ipc.shutdown_pipe import ShutdownPipe

DRAIN_SECONDS = 1.0
"""How long the server waits for the client to close its side after `quit`."""

INVALID_NICE = 5
"""By how much nice(2) lowers the priority of a handler whose client sends invalid commands."""

_RECEIVE_BYTES = 16384
_NANOSECONDS = 1_000_000_000

_SEND_ATTEMPTS = 8
"""How often per `send_timeout` a send is tried to a client whose socket is not writable."""

_LINGER_RESET = (1).to_bytes(4, sys.byteorder) + bytes(4)
"""A struct linger for SO_LINGER: on, zero seconds."""

_DISCONNECT_ERRORS = {
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ECONNABORTED,
}


class Session:
    """The session of one client. `serve` runs it and returns when the socket is closed.

    `has_normal_priority` turns False when the client sends an invalid command.
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
        self._command_log = CommandLog(log, config["log_rate"], progress.commands)
        end_by = deadline_after(progress.started, config["max_duration"])
        self._wait = ClientWait(client.fileno(), shutdown_pipe, end_by)
        self.has_normal_priority = True
        self._last_activity = progress.last_command

    def serve(self, service: Service) -> str:
        """Serve the client until the session ends, close the socket, and log the end.

        Returns the reason.
        """
        progress = self._progress
        reason, detail = self._run(service)
        self._close(reason)
        self._command_log.summarise()
        self._log.event(
            "warning" if reason in REJECTED else "info",
            log_protocol.CLIENT_DISCONNECTED,
            reason=reason,
            duration=round(time.monotonic() - progress.started, 6),
            bytes_in=progress.bytes_in,
            bytes_out=progress.bytes_out,
            commands=progress.commands,
            **detail,
        )
        self._log.flush()
        return reason

    def _run(self, service: Service) -> tuple[str, dict[str, object]]:
        """Run the session; return the reason for its end, and further log fields about it."""
        try:
            return self.process_input(service), {}
        except SessionEnded as ended:
            return ended.reason, ended.detail
        except OSError as error:
            if error.errno in _DISCONNECT_ERRORS:
                return "reset", {}
            return "error", {"error": reason_of(error)}
        except Exception as error:  # noqa: BLE001 - a defect ends one session, in the log
            return "error", {"error": repr(error)}

    def process_input(self, service: Service) -> str:
        """Continue from the session's progress; return the reason why the session ends.

        Raises SessionEnded or OSError.
        """
        progress = self._progress
        if progress.error is not None:
            raise progress.error
        if progress.is_closing:
            return "quit"
        verdict = service.handle_input(self, progress.pending) if progress.pending else CONTINUE
        while verdict in {CONTINUE, DISCARD}:
            if verdict == DISCARD:
                self._lower_priority()
                self._wait.check()
                reason, deadline = self._deadline()
                if time.monotonic() >= deadline:
                    return reason
            else:
                self._wait_for_input(service)
            data = self._receive()
            if data == b"":
                return service.handle_eof(self)
            if data is None:
                verdict = CONTINUE  # all that had arrived is discarded
            elif verdict == CONTINUE:
                verdict = service.handle_input(self, data)
        return verdict

    def _lower_priority(self) -> None:
        """Lower the priority of this process, once and for all.

        A hundred clients that send invalid commands without a pause would leave the master so
        little processor time that new clients wait. Where nice(2) is forbidden, nothing changes.
        """
        if self.has_normal_priority:
            self.has_normal_priority = False
            try:
                os.nice(INVALID_NICE)
            except OSError:
                pass

    def discard_input(self) -> None:
        """Throw away the input received so far. Raises SessionEnded or OSError."""
        while self._receive():
            self._wait.check()

    def count_commands(self, count: int) -> None:
        """Count commands that were answered, and restart the idle timeout."""
        self._progress.commands += count
        self._last_activity = time.monotonic()

    def count_activity(self) -> None:
        """Restart the idle timeout, for input of a service without commands."""
        self._last_activity = time.monotonic()

    def begin_job(self) -> None:
        """Log the session as those of clients: a health check that runs a job has an effect."""
        age = time.monotonic() - self._progress.started
        self._log.stop_demoting(time.time_ns() - int(age * _NANOSECONDS))

    def wait_for_fds(self, fds: tuple[int, ...], deadline: float) -> list[int]:
        """Wait until one of `fds` is readable, as `ClientWait.for_fds`."""
        self._log.flush()
        return self._wait.for_fds(fds, deadline)

    def log_commands(self, level: str, event: str, *fields: str) -> None:
        """Log commands, each given by JSON members, within the budget of the session."""
        self._command_log.add(level, event, *fields)

    def send(self, data: bytes) -> None:
        """Send all of `data`, as fast as the client reads. Raises SessionEnded or OSError."""
        deadline: float | None = None
        rest: bytes | memoryview = data
        while True:
            try:
                sent = self._client.send(rest, _socket.MSG_DONTWAIT)
                deadline = None
            except BlockingIOError:
                sent = 0
                if deadline is not None and time.monotonic() >= deadline:
                    self._reset_on_close()
                    raise SessionEnded("send_timeout") from None
            self._progress.bytes_out += sent
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]  # not a copy: a slow client takes few bytes at a time
            self._log.flush()
            if deadline is None:
                deadline = deadline_after(time.monotonic(), self._config["send_timeout"])
            self._wait_for_room(deadline)

    def _wait_for_room(self, deadline: float) -> None:
        """Wait until the socket is writable, or until the next attempt. Raises SessionEnded.

        The kernel calls a socket writable when a third of its buffer is free, which may be
        megabytes; a client that reads slowly makes room for one more byte long before.
        """
        timeout = self._config["send_timeout"]
        retry = deadline_after(time.monotonic(), timeout and timeout / _SEND_ATTEMPTS)
        try:
            self._wait.for_writable(min(deadline, retry), "send_timeout")
        except SessionEnded as ended:
            if ended.reason != "send_timeout":
                self._reset_on_close()
                raise

    def _reset_on_close(self) -> None:
        """Make the close a reset: unread answers would stay in the kernel for minutes."""
        self._client.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _LINGER_RESET)

    def _receive(self) -> bytes | None:
        """Return the input that has arrived: b"" at its end, None if there is none yet."""
        try:
            data = self._client.recv(_RECEIVE_BYTES, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        self._progress.bytes_in += len(data)
        return data

    def _wait_for_input(self, service: Service) -> None:
        """Wait for input. A request to stop ends a session that is between commands."""
        while True:
            if self._command_log.summary_due <= time.monotonic():
                self._command_log.summarise()
            self._log.flush()
            if self._wait.is_stopping() and not service.is_mid_command:
                raise SessionEnded(self._wait.stop_reason)
            reason, deadline = self._deadline()
            wake_at = self._command_log.summary_due
            if self._last_activity is not None:
                has_input = self._wait.for_input(deadline, reason, wake_at)
            else:
                self._wait.check_first(reason)
                has_input = self._wait.for_first_input(deadline, reason, wake_at)
            if has_input:
                return

    def _deadline(self) -> tuple[str, float]:
        """Return the reason if the client sends no command, and when it must have sent one."""
        if self._last_activity is None:
            timeout = self._config["first_command_timeout"]
            return "first_command_timeout", deadline_after(self._progress.started, timeout)
        return "idle_timeout", deadline_after(self._last_activity, self._config["idle_timeout"])

    def _close(self, reason: str) -> None:
        """Close the socket so that the last answer arrives.

        A socket that is closed with unread input sends a reset, which can destroy an answer that
        the client has not read yet. So the server shuts down its side, reads the client's to its
        end, and then closes. With other reasons than `quit` the last answer was sent long before,
        and one read without waiting is enough.
        """
        try:
            if reason == "quit":
                self._client.shutdown(_socket.SHUT_WR)
                self._drain()
            elif reason in {STOPPING, TERMINATED, ACCESS, "max_duration", "tls"}:
                self._receive()
        except (OSError, SessionEnded):
            pass  # the client is gone, or the time is over
        self._client.close()

    def _drain(self) -> None:
        """Read and discard until the client closes its side, for at most DRAIN_SECONDS."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._receive() != b"":
            self._wait.is_stopping()
            self._wait.for_input(deadline, "drained")
