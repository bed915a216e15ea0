"""PROXY handshakes: connections from balancers whose PROXY header is incomplete.

The master never waits for a header. It looks at what has arrived (MSG_PEEK) and reads exactly the
bytes of the header: the client's own bytes stay in the socket for the handler.
"""

from __future__ import annotations

import _socket
import os
import time

from tetrad.ipc import log_protocol
from tetrad.master.connections import Client
from tetrad.protocol import proxy
from tetrad.protocol.proxy import HeaderError
from tetrad.system import addresses, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.ipc.saved_state import PendingState
    from tetrad.master.admission import Admission
    from tetrad.master.connections import Listener
    from tetrad.protocol.proxy import Header
    from tetrad.system.event_loop import EventLoop

HEADER_TIMEOUT = "PROXY header timeout"
HEADER_CLOSED = "connection closed inside the PROXY header"
NOTHING_SENT = "connection closed before the PROXY header"
"""A health check that only connects: a balancer that has a client sends the header at once."""


class PendingConnection:
    """A connection from a balancer; `client` is the balancer until the header names the client.

    `deadline` is in seconds of the monotonic clock; `received` are the bytes of the header so far.
    """

    __slots__ = ("client", "deadline", "listener", "received", "socket")

    def __init__(
        self, socket: _socket.socket, client: Client, listener: Listener, deadline: float
    ) -> None:
        self.socket = socket
        self.client = client
        self.listener = listener
        self.deadline = deadline
        self.received = b""

    def read_header(self) -> Header | None:
        """Return the header, or None while it is incomplete. Raises HeaderError."""
        try:
            room = proxy.V2_MAX_BYTES - len(self.received)
            data = self.socket.recv(room, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
            if not data:
                raise self._closed()
            size, is_complete = proxy.header_length(self.received + data)
            self.received += self.socket.recv(size - len(self.received), _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            raise self._closed() from None
        return proxy.parse(self.received) if is_complete else None

    def _closed(self) -> HeaderError:
        return HeaderError(HEADER_CLOSED if self.received else NOTHING_SENT)

    def client_from(self, header: Header) -> Client:
        """Return the client that a header names; that may be the balancer itself.

        A client without an IP address is counted, and allowed or denied, as the balancer is.
        """
        balancer = self.client
        name, address = balancer.name, balancer.address
        if header.peer is not None:
            name, address = addresses.parse_peer(header.peer, 0)
        elif header.path is not None:
            serial = balancer.connection.rpartition("-")[2]
            name = f"unix:{header.path or serial}"
        fields: dict[str, object] = {"proxy": balancer.name}
        if header.unique_id:
            fields["unique_id"] = header.unique_id
        if header.is_check:
            fields[log_protocol.HEALTH_CHECK] = True
        return Client(name, address, balancer.connection, self.listener, fields)


class ProxyHandshakes:
    """Waits for the headers of pending connections, which count as clients meanwhile.

    `finish` is called with a connection and its header; `reject` with a connection, the reason and
    an error text. Both close the socket.
    """

    def __init__(
        self,
        loop: EventLoop,
        admission: Admission,
        finish: Callable[[PendingConnection, Header], object],
        reject: Callable[[PendingConnection, str, str | None], object],
    ) -> None:
        self._loop = loop
        self._admission = admission
        self._finish = finish
        self._reject = reject
        self._pending: dict[int, PendingConnection] = {}

    @property
    def fds(self) -> list[int]:
        """The descriptors of the pending connections."""
        return list(self._pending)

    def add(self, connection: PendingConnection) -> None:
        """Wait for the rest of a header."""
        fd = connection.socket.fileno()
        self._pending[fd] = connection
        self._admission.add_client(None)
        self._loop.watch(fd, self._on_readable)
        if "PROXY headers" not in self._loop.timers or connection.deadline < self._next_deadline:
            self._expire_at(connection.deadline)

    def save_state(self) -> list[PendingState]:
        """Return the pending connections for the next version."""
        return [
            (fd, one.listener.socket.fileno(), one.client.save_state(), one.deadline, one.received)
            for fd, one in self._pending.items()
        ]

    def restore_state(self, listener: Listener, states: list[PendingState]) -> None:
        """Wait for the headers that the version before waited for at a listener."""
        for fd, listener_fd, client, deadline, received in states:
            if listener_fd == listener.socket.fileno():
                os.set_inheritable(fd, False)
                socket = sockets.from_fd(fd, listener.config["family"])
                balancer = Client.restore_state(client)
                connection = PendingConnection(socket, balancer, listener, deadline)
                connection.received = received
                self.add(connection)

    def end_listener(self, listener: Listener, successor: Listener | None) -> None:
        """Reject the pending connections of a listener that is closed, or leave them to another."""
        for connection in [one for one in self._pending.values() if one.listener is listener]:
            if successor is not None and successor.is_behind_proxy:
                connection.listener = successor
            else:
                self._remove(connection)
                self._reject(connection, "stopping", None)

    def _on_readable(self, fd: int) -> None:
        connection = self._pending[fd]
        try:
            header = connection.read_header()
        except HeaderError as error:
            self._remove(connection)
            self._reject(connection, "proxy", str(error))
        else:
            if header is not None:
                self._remove(connection)
                self._finish(connection, header)

    def _remove(self, connection: PendingConnection) -> None:
        fd = connection.socket.fileno()
        del self._pending[fd]
        self._loop.unwatch(fd)
        self._admission.remove_client(None)

    def _expire_at(self, when: float) -> None:
        self._next_deadline = when
        self._loop.timers.set("PROXY headers", when, self._expire)

    def _expire(self) -> None:
        """Reject the connections whose deadline has passed, and set the timer for the next one."""
        now = time.monotonic()
        for connection in [one for one in self._pending.values() if one.deadline <= now]:
            self._remove(connection)
            self._reject(connection, "proxy", HEADER_TIMEOUT)
        if self._pending:
            self._expire_at(min(one.deadline for one in self._pending.values()))
