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

LATE = "it has not come in time"
CUT_SHORT = "the connection ended before its end"


class PendingConnection:
    """A connection from a balancer, which is `client` as long as we do not know whom it brings.

    `deadline` is in seconds of the monotonic clock; `said` is what has been read of the header.
    """

    __slots__ = ("client", "deadline", "listener", "said", "socket")

    def __init__(
        self, socket: _socket.socket, client: Client, listener: Listener, deadline: float
    ) -> None:
        self.socket = socket
        self.client = client
        self.listener = listener
        self.deadline = deadline
        self.said = b""

    def hear(self) -> Header | None:
        """Return what its header says, or None while that is not all there. Raises HeaderError."""
        try:
            room = proxy.LONGEST_2 - len(self.said)
            data = self.socket.recv(room, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
            if not data:
                raise HeaderError(CUT_SHORT)
            size, is_whole = proxy.extent(self.said + data)
            self.said += self.socket.recv(size - len(self.said), _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            raise HeaderError(CUT_SHORT) from None
        return proxy.parse(self.said) if is_whole else None

    def brings(self, header: Header) -> Client:
        """Return the client that the balancer has brought, which may be itself."""
        balancer = self.client
        name, address = balancer.name, balancer.address
        if header.peer is not None:
            name, address = addresses.read(header.peer, 0)
        elif header.path is not None:
            serial = balancer.connection.rpartition("-")[2]
            name, address = f"unix:{header.path or serial}", None
        more: dict[str, object] = {"proxy": balancer.name}
        if header.unique_id:
            more["unique_id"] = header.unique_id
        if header.is_check:
            more[log_protocol.CHECK] = True
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
        self._welcome = welcome
        self._turn_away = turn_away
        self._guests: dict[int, PendingConnection] = {}

    def keep(self, guest: PendingConnection) -> None:
        """Have a guest wait for the rest of its header."""
        fd = guest.socket.fileno()
        self._guests[fd] = guest
        self._admission.enter(None)
        self._loop.watch(fd, self._hear)
        if "vestibule" not in self._loop.timers or guest.deadline < self._next:
            self._expire_at(guest.deadline)

    def leave(self) -> list[PendingState]:
        """Return who waits, for the next version."""
        return [
            (fd, one.listener.socket.fileno(), one.client.leave(), one.deadline, one.said)
            for fd, one in self._guests.items()
        ]

    def inherit(self, listener: Listener, guests: list[PendingState]) -> None:
        """Have those of a listener wait on who did so in the version before."""
        for fd, listening, client, deadline, said in guests:
            if listening == listener.socket.fileno():
                os.set_inheritable(fd, False)
                socket = sockets.adopt(fd, listener.plan["family"])
                guest = PendingConnection(socket, Client.inherited(client), listener, deadline)
                guest.said = said
                self.keep(guest)

    def clear(self, listener: Listener) -> None:
        """Turn away who waits at a listener that is closed."""
        for guest in [one for one in self._guests.values() if one.listener is listener]:
            self._release(guest)
            self._turn_away(guest, "stopping", None)

    def _hear(self, fd: int) -> None:
        guest = self._guests[fd]
        try:
            header = guest.hear()
        except HeaderError as error:
            self._release(guest)
            self._turn_away(guest, "proxy", str(error))
        else:
            if header is not None:
                self._release(guest)
                self._welcome(guest, header)

    def _release(self, guest: PendingConnection) -> None:
        """Wait for it no more."""
        fd = guest.socket.fileno()
        del self._guests[fd]
        self._loop.unwatch(fd)
        self._admission.leave(None)

    def _expire_at(self, when: float) -> None:
        self._next = when
        self._loop.timers.set("vestibule", when, self._expire)

    def _expire(self) -> None:
        """Turn away those whose time is over, and look again when the next one's will be."""
        now = time.monotonic()
        for guest in [one for one in self._guests.values() if one.deadline <= now]:
            self._release(guest)
            self._turn_away(guest, "proxy", LATE)
        if self._guests:
            self._expire_at(min(guest.deadline for guest in self._guests.values()))
