"""A session that begins with a TLS handshake.

The master imports this module only where a listener has `tls`.
"""

from __future__ import annotations

import time

from tetrad.handler.session import Session
from tetrad.handler.tls_socket import TlsSocket
from tetrad.handler.wait import SessionEnded, deadline_after
from tetrad.ipc import exit_notices, log_protocol
from tetrad.system.json_lite import members
from tetrad.tls import trust

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tetrad.handler.progress import SessionProgress
    from tetrad.handler.services import Service
    from tetrad.ipc.log_protocol import LogWriter
    from tetrad.ipc.runtime_config import SessionConfig
    from tetrad.ipc.shutdown_pipe import ShutdownPipe
    from tetrad.tls.context import TlsContext

_MAX_SUBJECT = 400
"""Characters of a certificate's subject in the log."""


class TlsSession(Session):
    """A session with TLS. The handshake has to be over within `first_command_timeout`.

    The master gets a description of the client's certificate. `report` is for that: the notice pipe
    and the handler's exit notice.
    """

    def __init__(  # noqa: PLR0913 - those of a session, and the TLS context
        self,
        socket: _socket.socket,
        config: SessionConfig,
        shutdown_pipe: ShutdownPipe,
        log: LogWriter,
        progress: SessionProgress,
        *,
        tls: TlsContext,
        report: tuple[int, bytes],
    ) -> None:
        self._trust = tls.trust
        self._report = report
        self._tls_socket = TlsSocket(socket, tls.context)
        super().__init__(self._tls_socket, config, shutdown_pipe, log, progress)
        log.event_json("info", log_protocol.CLIENT_CONNECTED, "")

    def process_input(self, service: Service) -> str:
        """Do the handshake, and serve the client if its certificate is accepted."""
        if not self._do_handshake(service):
            return "eof"
        if self._trust is not None:
            subject = self._tls_socket.subject
            self._log.add_context(members({"subject": _shortened(subject)}).encode())
            if not self._trust.allows_subject(subject):
                return "access"
            description = trust.describe(self._tls_socket.chain, subject)
            exit_notices.send_certificate(*self._report, description)
        self._progress.pending = self._tls_socket.read()
        self._progress.bytes_in = len(self._progress.pending)
        return super().process_input(service)

    def _wait_for_input(self, service: Service) -> None:
        """Wait for input, and before that for room for what OpenSSL has answered by itself."""
        if self._tls_socket.has_backlog:
            self._log.flush()
            self._flush()
        super()._wait_for_input(service)

    def _do_handshake(self, service: Service) -> bool:
        """Do the handshake; False if the client disconnected without sending anything.

        Raises SessionEnded or OSError.
        """
        socket, has_begun = self._tls_socket, False
        while not socket.do_handshake():
            self._flush()
            self._wait_for_input(service)
            try:
                has_input = socket.receive()
            except BlockingIOError:
                continue
            if not has_input:
                if has_begun:
                    error = "the client disconnected during the handshake"
                    raise SessionEnded("tls", error=error)
                return False
            has_begun = True
        self._flush()
        return True

    def _flush(self) -> None:
        """Send OpenSSL's own records as fast as the client reads. Raises SessionEnded, OSError."""
        socket, deadline = self._tls_socket, None
        while True:
            unsent = socket.unsent_bytes
            try:
                socket.flush()
            except BlockingIOError:
                if deadline is None or socket.unsent_bytes < unsent:
                    deadline = deadline_after(time.monotonic(), self._config["send_timeout"])
                elif time.monotonic() >= deadline:
                    self._reset_on_close()
                    raise SessionEnded("send_timeout") from None
                self._wait_for_room(deadline)
            else:
                return


def _shortened(subject: str) -> str:
    return subject if len(subject) <= _MAX_SUBJECT else f"{subject[:_MAX_SUBJECT]}..."
