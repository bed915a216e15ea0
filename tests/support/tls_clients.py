"""TLS clients: of a daemon's listener, and with TLS in memory."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event


def secured(
    daemon: Daemon, context: ssl.SSLContext, listener: int = 0, plain: Client | None = None
) -> Client:
    """Connect, or take a connected client, and do the handshake."""
    plain = plain or daemon.connect(listener)
    wrapped = context.wrap_socket(plain.socket, server_hostname="127.0.0.1")
    plain.socket = wrapped
    return plain


def session_end(daemon: Daemon, **fields: object) -> Event:
    """Return the log line of a session's end."""
    return daemon.wait_for("client.disconnected", count=1, **fields)


def handshake_error(daemon: Daemon, client: Client) -> str:
    """Return the logged error of a handshake that failed."""
    line = session_end(daemon, client=client.name)
    assert (line["reason"], line["commands"], line["bytes_out"]) == ("tls", 0, 0)
    events = [one["event"] for one in daemon.events(connection=line["connection"])]
    assert events == ["client.connected", "client.disconnected"]
    return str(line["error"])


class TlsClient:
    """A client whose two directions can be closed one by one, with TLS in memory."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self.plain = plain
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")

    def do_handshake(self) -> TlsClient:
        """Do the handshake; its last record waits in memory."""
        self.until_done(self.tls.do_handshake)
        return self

    def until_done(self, step: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the step returns
        """Do a step of TLS, with as much input as it needs; its last output waits in memory."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.push()
                data = self.plain.recv(65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()

    def write(self, data: bytes) -> None:
        """Encrypt data, which is sent with the next push."""
        self.tls.write(data)

    def push(self) -> None:
        """Send what is encrypted."""
        self.plain.sendall(self.outgoing.read())

    def exchange(self, data: bytes) -> bytes:
        """Send data and read as much, at the same time."""
        self.tls.write(data)
        due, answer = memoryview(self.outgoing.read()), b""
        while len(answer) < len(data):
            readable, writable, _ = select.select([self.plain], [self.plain] * bool(due), [], 60)
            assert readable or writable, "neither direction makes progress"
            if writable:
                due = due[self.plain.send(due, socket.MSG_DONTWAIT) :]
            if readable:
                self.receive()
                answer += self.received()
        return answer

    def receive(self) -> None:
        """Receive records, if there are any."""
        with contextlib.suppress(BlockingIOError):
            self.incoming.write(self.plain.recv(65536, socket.MSG_DONTWAIT))

    def received(self) -> bytes:
        """Return the plain text of the records received so far."""
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                data += self.tls.read(65536)
        return data

    def send_close_notify(self) -> None:
        """End the sending direction of TLS, and keep the connection."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.push()

    def read_all(self) -> bytes:
        """Return everything up to the server's close_notify."""
        data = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while part := self.until_done(lambda: self.tls.read(65536)):
                data += part
        return data
