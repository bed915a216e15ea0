"""TLS: what listeners are encrypted with, and sessions that begin with a handshake.

Imported by the master only where a listener is encrypted (`tetrad.tls.context`).
"""

from __future__ import annotations

import fnmatch
import os
import ssl
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
    from tetrad.ipc.runtime_config import SessionConfig, TlsConfig
    from tetrad.ipc.shutdown_pipe import ShutdownPipe

_LONGEST_SUBJECT = 400

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsContext:
    """What the clients of a listener are encrypted with, and who of them is served."""

    def __init__(self, config: TlsConfig) -> None:
        self.context = server_context(config)
        self.asks = config["client_ca"] is not None
        self._subjects = config["subjects"]

    def session(
        self,
        socket: _socket.socket,
        config: SessionConfig,
        shutdown_pipe: ShutdownPipe,
        log: LogWriter,
        progress: SessionProgress,
    ) -> Session:
        """Return a session with a client."""
        return TlsSession(socket, config, shutdown_pipe, log, progress, encryption=self)

    def allows(self, subject: str) -> bool:
        """Tell whether somebody whom `client_ca` vouches for is served."""
        patterns = self._subjects
        return not patterns or any(fnmatch.fnmatchcase(subject, one) for one in patterns)


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """Return OpenSSL's context of a listener. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config["minimum_version"]]
    # No session is taken up again: each client shows its certificate, and keys are never shared.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    # Commands have an end of their own, so an end of the connection is as good as one in TLS.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    _load(context, config["certificate"], config["key"])
    if config["client_ca"] is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=config["client_ca"])
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have the context use what it would rather read from files."""
    fds: list[int] = []
    try:
        for text in (certificate, key):
            fds.append(os.memfd_create("pem"))
            os.write(fds[-1], text.encode())
        one, other = (f"/proc/self/fd/{fd}" for fd in fds)
        # A key that wants a password is refused instead of asking a terminal for it.
        context.load_cert_chain(one, other, password=str)
    finally:
        for fd in fds:
            os.close(fd)


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
        encryption: TlsContext,
    ) -> None:
        self._encryption = encryption
        self._encrypted = TlsSocket(socket, encryption.context)
        super().__init__(self._encrypted, config, shutdown_pipe, log, progress)
        log.event_json("info", log_protocol.CLIENT_CONNECTED)

    def converse(self, service: Service) -> str:
        """Shake hands, and serve the client if it is one to be served."""
        if not self._shake_hands(service):
            return "eof"
        if self._encryption.asks:
            subject = self._encrypted.subject
            self._log.add_context(members({"subject": _short(subject)}).encode())
            if not self._encryption.allows(subject):
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
                self._waiting.for_room(deadline, "send_timeout")
            else:
                return


def _short(subject: str) -> str:
    return subject if len(subject) <= _LONGEST_SUBJECT else f"{subject[:_LONGEST_SUBJECT]}..."
