"""The vestibule: who was accepted from a balancer, until it is known whom the balancer brings.

Nothing here waits: what has come of a header is looked at, and exactly its bytes are read, so that
the client's own remain for the handler, and nothing is left that would wake us again and again.
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

    from tetrad.master.admission import Admission
    from tetrad.master.connections import Listener
    from tetrad.master.saved_state import PendingState
    from tetrad.protocol.proxy import Header
    from tetrad.system.event_loop import EventLoop

HEADER_TIMEOUT = "it has not come in time"
HEADER_CLOSED = "the connection ended before its end"


class PendingConnection:
    """A connection from a balancer, which is `client` as long as we do not know whom it brings.

    `deadline` is in seconds of the monotonic clock; `said` is what has been read of the header.
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
        """Return what its header says, or None while that is not all there. Raises HeaderError."""
        try:
            room = proxy.LONGEST_2 - len(self.received)
            data = self.socket.recv(room, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
            if not data:
                raise HeaderError(HEADER_CLOSED)
            size, is_whole = proxy.extent(self.received + data)
            self.received += self.socket.recv(size - len(self.received), _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            raise HeaderError(HEADER_CLOSED) from None
        return proxy.parse(self.received) if is_whole else None

    def client_from(self, header: Header) -> Client:
        """Return the client that the balancer has brought, which may be itself."""
        balancer = self.client
        name, address = balancer.name, balancer.address
        if header.peer is not None:
            name, address = addresses.parse_peer(header.peer, 0)
        elif header.path is not None:
            serial = balancer.connection.rpartition("-")[2]
            name, address = f"unix:{header.path or serial}", None
        more: dict[str, object] = {"proxy": balancer.name}
        if header.unique_id:
            more["unique_id"] = header.unique_id
        if header.is_check:
            more[log_protocol.HEALTH_CHECK] = True
        return Client(name, address, balancer.connection, self.listener, more)


class ProxyHandshakes:
    """Keeps guests until their headers are there; they count as clients meanwhile.

    `welcome` is called with a guest and its header, `turn_away` with a guest, the log's word for
    why, and more about it. The socket is theirs to close.
    """

    def __init__(
        self,
        loop: EventLoop,
        admission: Admission,
        welcome: Callable[[PendingConnection, Header], object],
        turn_away: Callable[[PendingConnection, str, str | None], object],
    ) -> None:
        self._loop = loop
        self._admission = admission
        self._finish = welcome
        self._reject = turn_away
        self._pending: dict[int, PendingConnection] = {}

    def add(self, pending: PendingConnection) -> None:
        """Have a guest wait for the rest of its header."""
        fd = pending.socket.fileno()
        self._pending[fd] = pending
        self._admission.add_client(None)
        self._loop.watch(fd, self._on_readable)
        if "vestibule" not in self._loop.timers or pending.deadline < self._next:
            self._expire_at(pending.deadline)

    def save_state(self) -> list[PendingState]:
        """Return who waits, for the next version."""
        return [
            (fd, one.listener.socket.fileno(), one.client.save_state(), one.deadline, one.received)
            for fd, one in self._pending.items()
        ]

    def restore_state(self, listener: Listener, pending_connections: list[PendingState]) -> None:
        """Have those of a listener wait on who did so in the version before."""
        for fd, listening, client, deadline, said in pending_connections:
            if listening == listener.socket.fileno():
                os.set_inheritable(fd, False)
                socket = sockets.from_fd(fd, listener.config["family"])
                pending = PendingConnection(
                    socket, Client.restore_state(client), listener, deadline
                )
                pending.received = said
                self.add(pending)

    def reject_listener(self, listener: Listener) -> None:
        """Turn away who waits at a listener that is closed."""
        for pending in [one for one in self._pending.values() if one.listener is listener]:
            self._remove(pending)
            self._reject(pending, "stopping", None)

    def _on_readable(self, fd: int) -> None:
        pending = self._pending[fd]
        try:
            header = pending.read_header()
        except HeaderError as error:
            self._remove(pending)
            self._reject(pending, "proxy", str(error))
        else:
            if header is not None:
                self._remove(pending)
                self._finish(pending, header)

    def _remove(self, pending: PendingConnection) -> None:
        """Wait for it no more."""
        fd = pending.socket.fileno()
        del self._pending[fd]
        self._loop.unwatch(fd)
        self._admission.remove_client(None)

    def _expire_at(self, when: float) -> None:
        self._next = when
        self._loop.timers.set("vestibule", when, self._expire)

    def _expire(self) -> None:
        """Turn away those whose time is over, and look again when the next one's will be."""
        now = time.monotonic()
        for pending in [one for one in self._pending.values() if one.deadline <= now]:
            self._remove(pending)
            self._reject(pending, "proxy", HEADER_TIMEOUT)
        if self._pending:
            self._expire_at(min(pending.deadline for pending in self._pending.values()))
