"""TLS: an encrypted client's socket, which a session uses as any other, and its handshake.

Imported by the master only where a listener is encrypted (`tetrad.encryption`). OpenSSL never sees
the socket: it is given what has come, and says what is to go. So nothing lies unseen inside it
while somebody waits for the socket, and no copy of the socket is ever made non-blocking.
"""

from __future__ import annotations

import _socket
import fnmatch
import os
import ssl
import time

from tetrad import events
from tetrad.jsonlines import members
from tetrad.session import Session
from tetrad.tlswords import LEFT, words
from tetrad.waiting import Ended, after

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tetrad.events import Journal
    from tetrad.lifeline import Lifeline
    from tetrad.plan import SessionPlan, TlsPlan
    from tetrad.quick import Begun
    from tetrad.services import Service

_RECORD_BYTES = 16384
"""The most that is encrypted at once, and read at once."""

_LONGEST_SUBJECT = 400

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
"""The names that RFC 4514 shortens."""

_SPECIAL = set('"+,;<>\\')


class Encryption:
    """What the clients of a listener are encrypted with, and who of them is served."""

    def __init__(self, plan: TlsPlan) -> None:
        self.context = server_context(plan)
        self.asks = plan["client_ca"] is not None
        self._subjects = plan["subjects"]

    def session(
        self,
        socket: _socket.socket,
        plan: SessionPlan,
        lifeline: Lifeline,
        journal: Journal,
        begun: Begun,
    ) -> Session:
        """Return a session with a client."""
        return TlsSession(socket, plan, lifeline, journal, begun, encryption=self)

    def allows(self, subject: str) -> bool:
        """Tell whether somebody whom `client_ca` vouches for is served."""
        patterns = self._subjects
        return not patterns or any(fnmatch.fnmatchcase(subject, one) for one in patterns)


def server_context(plan: TlsPlan) -> ssl.SSLContext:
    """Return OpenSSL's context of a listener. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[plan["minimum_version"]]
    # No session is taken up again: each client shows its certificate, and keys are never shared.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    # Commands have an end of their own, so an end of the connection is as good as one in TLS.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    _load(context, plan["certificate"], plan["key"])
    if plan["client_ca"] is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=plan["client_ca"])
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


def subject_of(certificate: Mapping[str, Any]) -> str:
    """Return the subject of a certificate, as RFC 4514 writes it: the most specific part first."""
    subject = certificate.get("subject", ())
    return ",".join("+".join(_part(*pair) for pair in part) for part in reversed(subject))


def _part(name: str, value: str) -> str:
    escaped = "".join(map(_escaped, value))
    if value[:1] in {"#", " "}:
        escaped = f"\\{escaped}"
    if value[-1:] == " " and len(value) > 1:
        escaped = f"{escaped[:-1]}\\ "
    return f"{_SHORT.get(name, name)}={escaped}"


def _escaped(character: str) -> str:
    if character in _SPECIAL:
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


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

        Raises Ended.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise Ended("tls", error=words(error)) from None
        return True

    @property
    def subject(self) -> str:
        """Whom the client's certificate is about."""
        return subject_of(self._tls.getpeercert() or {})

    def recv(self, _size: int, _flags: int) -> bytes:
        """Return all that has come, b"" at the end. Raises Ended, BlockingIOError or OSError."""
        if not self._has_ended:
            self.listen()
        data = self.read()
        if not data and not self._has_ended:
            raise BlockingIOError
        return data

    def read(self) -> bytes:
        """Return what has been taken in. Raises Ended."""
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
            raise Ended("tls", error=words(error)) from None
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

        What was encrypted once must not be again: to be called with the same until it is sent.
        """
        if not self._accepted:
            self._accepted = self._tls.write(data[:_RECORD_BYTES])
        self.flush()
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


class TlsSession(Session):
    """A session that begins with a handshake, for which there is as much time as for a command."""

    def __init__(  # noqa: PLR0913 - a session's, and what it is encrypted with
        self,
        socket: _socket.socket,
        plan: SessionPlan,
        lifeline: Lifeline,
        journal: Journal,
        begun: Begun,
        *,
        encryption: Encryption,
    ) -> None:
        self._encryption = encryption
        self._encrypted = TlsSocket(socket, encryption.context)
        super().__init__(self._encrypted, plan, lifeline, journal, begun)
        journal.tell("info", events.CLIENT_CONNECTED)

    def converse(self, service: Service) -> str:
        """Shake hands, and serve the client if it is one to be served."""
        if not self._shake_hands(service):
            return "eof"
        if self._encryption.asks:
            subject = self._encrypted.subject
            self._journal.speak_also_of(members({"subject": _short(subject)}).encode())
            if not self._encryption.allows(subject):
                return "access"
        self._begun.data = self._encrypted.read()
        self._begun.bytes_in = len(self._begun.data)
        return super().converse(service)

    def _shake_hands(self, service: Service) -> bool:
        """Shake hands; False if the client has not said a word. Raises Ended or OSError."""
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
                    raise Ended("tls", error=LEFT)
                return False
            has_spoken = True
        self._flush()
        return True

    def _flush(self) -> None:
        """Send our part of the handshake, as fast as the client reads."""
        deadline = after(time.monotonic(), self._plan["send_timeout"])
        while True:
            try:
                self._encrypted.flush()
            except BlockingIOError:
                self._waiting.for_room(deadline, "send_timeout")
            else:
                return


def _short(subject: str) -> str:
    return subject if len(subject) <= _LONGEST_SUBJECT else f"{subject[:_LONGEST_SUBJECT]}..."
