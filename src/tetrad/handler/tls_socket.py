"""An encrypted client's socket, which a session uses as any other.

OpenSSL never sees the socket: it is given what has come, and says what is to go. So nothing lies
unseen inside it while somebody waits for the socket, and no copy of the socket is ever made
non-blocking.
"""

from __future__ import annotations

import _socket
import ssl

from tetrad.handler.wait import SessionEnded
from tetrad.tls.errors import words
from tetrad.tls.subjects import subject_of

_RECORD_BYTES = 16384
"""The most that is encrypted at once, and read at once."""


class TlsSocket:
    """A client's socket: what a session sends and receives is what it means, not what goes."""

    __slots__ = ("_accepted", "_arriving", "_due", "_has_ended", "_leaving", "_socket", "_tls")

    def __init__(self, socket: _socket.socket, context: ssl.SSLContext) -> None:
        self._socket = socket
        self._arriving = ssl.MemoryBIO()
        self._leaving = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arriving, self._leaving, server_side=True)
        self._due = b""
        self._accepted = 0
        self._has_ended = False

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Set an option of the socket below."""
        self._socket.setsockopt(level, option, value)

    def listen(self) -> bool:
        """Take in what has come; True if there was something. Raises OSError."""
        data = self._socket.recv(_RECORD_BYTES, _socket.MSG_DONTWAIT)
        if data:
            self._arriving.write(data)
        else:
            self._arriving.write_eof()
        return bool(data)

    def shake_hands(self) -> bool:
        """Go on with the handshake as far as what has come will do; True at its end.

        Raises SessionEnded.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise SessionEnded("tls", error=words(error)) from None
        return True

    @property
    def subject(self) -> str:
        """Whom the client's certificate is about."""
        return subject_of(self._tls.getpeercert() or {})

    def recv(self, _size: int, _flags: int) -> bytes:
        """Return the bytes received, b"" at the end.

        Raises SessionEnded, BlockingIOError or OSError.
        """
        if not self._has_ended:
            self.listen()
        data = self.read()
        if not data and not self._has_ended:
            raise BlockingIOError
        return data

    def read(self) -> bytes:
        """Return what has been taken in. Raises SessionEnded."""
        parts = []
        try:
            while not self._has_ended:
                parts.append(self._tls.read(_RECORD_BYTES))
                if not parts[-1]:
                    self._end()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end()  # its goodbye answers ours
        except ssl.SSLError as error:
            raise SessionEnded("tls", error=words(error)) from None
        self._try_to_flush()  # an update of the keys may have to be answered
        return b"".join(parts)

    def _end(self) -> None:
        """The client has said all it will say; who waits for the socket is to see that, too."""
        self._has_ended = True
        try:
            self._socket.shutdown(_socket.SHUT_RD)
        except OSError:
            pass  # it is no more

    def send(self, data: bytes, _flags: int) -> int:
        """Send some of it, and return how much. Raises BlockingIOError or OSError.

        What was encrypted once must not be again: to be called with the same until it is sent. 0 is
        a part of that, BlockingIOError is nothing at all.
        """
        if not self._accepted:
            self._accepted = self._tls.write(data[:_RECORD_BYTES])
        self._due += self._leaving.read()
        due = len(self._due)
        try:
            self.flush()
        except BlockingIOError:
            if len(self._due) == due:
                raise
            return 0
        accepted, self._accepted = self._accepted, 0
        return accepted

    def flush(self) -> None:
        """Send what is encrypted already. Raises BlockingIOError or OSError."""
        self._due += self._leaving.read()
        while self._due:
            self._due = self._due[self._socket.send(self._due, _socket.MSG_DONTWAIT) :]

    def _try_to_flush(self) -> None:
        try:
            self.flush()
        except OSError:
            pass  # later, or never

    def shutdown(self, how: int) -> None:
        """Say that this was all, in TLS and below it. Raises OSError."""
        self._take_leave()
        self._socket.shutdown(how)

    def _take_leave(self) -> None:
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the client's own goodbye is not waited for here
        self._try_to_flush()

    def close(self) -> None:
        """Leave politely if that can be done at once."""
        self._take_leave()
        self._socket.close()
