"""The socket of a TLS client, with the interface that a session uses of a plain one.

OpenSSL never uses the socket: it gets received bytes from memory and puts bytes to send into
memory. So no received record stays inside OpenSSL while a session waits for the socket, and
O_NONBLOCK, which all copies of a descriptor share, is not needed.

OpenSSL answers some records by itself: a KeyUpdate, an attempt to renegotiate. As long as the
client does not read these answers, no more of its records are received.
"""

from __future__ import annotations

import _socket
import ssl
from _ssl import ENCODING_DER

from tetrad.handler.wait import SessionEnded
from tetrad.tls.errors import describe
from tetrad.tls.subjects import subject_of

_RECORD_BYTES = 16384
"""The most bytes that are encrypted at once, and received at once."""

_MAX_UNSENT_BYTES = 16384
"""How many bytes may wait to be sent while more is received."""


class TlsSocket:
    """A client's socket with TLS: `send` and `recv` take and return plain text."""

    __slots__ = ("_incoming", "_is_eof", "_outgoing", "_socket", "_tls", "_unsent", "_written")

    def __init__(self, socket: _socket.socket, context: ssl.SSLContext) -> None:
        self._socket = socket
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = b""
        self._written = 0
        self._is_eof = False

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Set an option of the underlying socket."""
        self._socket.setsockopt(level, option, value)

    def receive(self) -> bool:
        """Receive records; False at the end of the input. Raises BlockingIOError or OSError."""
        data = self._socket.recv(_RECORD_BYTES, _socket.MSG_DONTWAIT)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    def do_handshake(self) -> bool:
        """Continue the handshake with the records received so far; True when it is complete.

        Raises SessionEnded.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise SessionEnded("tls", error=describe(error, "client")) from None
        return True

    @property
    def subject(self) -> str:
        """The subject of the client's certificate."""
        return subject_of(self._tls.getpeercert() or {})

    @property
    def chain(self) -> list[bytes]:
        """The client's certificate and its CAs, as DER."""
        # `SSLObject` has the method since Python 3.13 only.
        chain = self._tls._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # noqa: SLF001
        return [one.public_bytes(ENCODING_DER) for one in chain]

    @property
    def unsent_bytes(self) -> int:
        """How many encrypted bytes wait to be sent."""
        return len(self._unsent)

    @property
    def has_backlog(self) -> bool:
        """Whether so much waits to be sent that nothing is received."""
        return len(self._unsent) > _MAX_UNSENT_BYTES

    def recv(self, _size: int, _flags: int) -> bytes:
        """Receive and return plain text, b"" at its end.

        Raises SessionEnded, BlockingIOError or OSError.
        """
        if self.has_backlog:
            raise BlockingIOError
        if not self._is_eof:
            self.receive()
        data = self.read()
        if not data and not self._is_eof:
            raise BlockingIOError
        return data

    def read(self) -> bytes:
        """Return the plain text of the records received so far. Raises SessionEnded."""
        parts = []
        try:
            while not self._is_eof:
                parts.append(self._tls.read(_RECORD_BYTES))
                if not parts[-1]:
                    self._end_input()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end_input()  # close_notify after the one that was sent
        except ssl.SSLError as error:
            raise SessionEnded("tls", error=describe(error, "client")) from None
        self._try_to_flush()  # a KeyUpdate may have to be answered
        return b"".join(parts)

    def _end_input(self) -> None:
        """Record the end of the input, and make the socket show it to the session's polls."""
        self._is_eof = True
        try:
            self._socket.shutdown(_socket.SHUT_RD)
        except OSError:
            pass  # it is closed already

    def send(self, data: bytes | memoryview, _flags: int) -> int:
        """Send some of `data`; return how many bytes. Raises BlockingIOError or OSError.

        Bytes that OpenSSL has encrypted must not be encrypted again, so the caller passes the same
        data until it is sent. 0 means that part of a record was sent, BlockingIOError that nothing
        was.
        """
        if not self._written:
            self._written = self._tls.write(data[:_RECORD_BYTES])
        self._unsent += self._outgoing.read()
        before = len(self._unsent)
        try:
            self.flush()
        except BlockingIOError:
            if len(self._unsent) == before:
                raise
            return 0
        written, self._written = self._written, 0
        return written

    def flush(self) -> None:
        """Send all encrypted bytes. Raises BlockingIOError or OSError."""
        self._unsent += self._outgoing.read()
        while self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent, _socket.MSG_DONTWAIT) :]

    def _try_to_flush(self) -> None:
        try:
            self.flush()
        except OSError:
            pass  # the next send tries again

    def shutdown(self, how: int) -> None:
        """Send close_notify and shut down the socket. Raises OSError."""
        if self.has_backlog:
            raise BlockingIOError  # there is no orderly end with a client that does not read
        self._send_close_notify()
        self._socket.shutdown(how)

    def _send_close_notify(self) -> None:
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the client's close_notify is not waited for here
        self._try_to_flush()

    def close(self) -> None:
        """Send close_notify if that is possible without waiting, and close the socket."""
        self._send_close_notify()
        self._socket.close()
