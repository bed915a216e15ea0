"""TLS: what listeners are encrypted with, and sessions that begin with a handshake.

Imported by the master only where a listener is encrypted (`tetrad.tls.context`).
"""

from __future__ import annotations

import time

from tetrad.handler.session import Session
from tetrad.handler.tls_socket import TlsSocket
from tetrad.handler.wait import SessionEnded, after
from tetrad.ipc import log_protocol
from tetrad.system.json_lite import members
from tetrad.tls.errors import LEFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tetrad.handler.progress import SessionProgress
    from tetrad.handler.services import Service
    from tetrad.ipc.log_protocol import LogWriter
    from tetrad.ipc.runtime_config import SessionConfig
    from tetrad.ipc.shutdown_pipe import ShutdownPipe
    from tetrad.tls.context import TlsContext

_LONGEST_SUBJECT = 400


class TlsSession(Session):
    """A session that begins with a handshake, for which there is as much time as for a command."""

    def __init__(  # noqa: PLR0913 - a session's, and what it is encrypted with
        self,
        socket: _socket.socket,
        config: SessionConfig,
        shutdown_pipe: ShutdownPipe,
        log: LogWriter,
        progress: SessionProgress,
        *,
        tls: TlsContext,
    ) -> None:
        self._tls = tls
        self._encrypted = TlsSocket(socket, tls.context)
        super().__init__(self._encrypted, config, shutdown_pipe, log, progress)
        log.event_json("info", log_protocol.CLIENT_CONNECTED)

    def converse(self, service: Service) -> str:
        """Shake hands, and serve the client if it is one to be served."""
        if not self._shake_hands(service):
            return "eof"
        if self._tls.requires_certificate:
            subject = self._encrypted.subject
            self._log.add_context(members({"subject": _short(subject)}).encode())
            if not self._tls.allows(subject):
                return "access"
        self._progress.data = self._encrypted.read()
        self._progress.bytes_in = len(self._progress.data)
        return super().converse(service)

    def _shake_hands(self, service: Service) -> bool:
        """Shake hands; False if the client has not said a word. Raises SessionEnded or OSError."""
        socket, has_spoken = self._encrypted, False
        while not socket.shake_hands():
            self._flush()
            self._await_input(service)
            try:
                there_is_more = socket.listen()
            except BlockingIOError:
                continue
            if not there_is_more:
                if has_spoken:
                    raise SessionEnded("tls", error=LEFT)
                return False
            has_spoken = True
        self._flush()
        return True

    def _flush(self) -> None:
        """Send our part of the handshake, as fast as the client reads."""
        deadline = after(time.monotonic(), self._config["send_timeout"])
        while True:
            try:
                self._encrypted.flush()
            except BlockingIOError:
                self._waiting.for_writable(deadline, "send_timeout")
            else:
                return


def _short(subject: str) -> str:
    return subject if len(subject) <= _LONGEST_SUBJECT else f"{subject[:_LONGEST_SUBJECT]}..."
