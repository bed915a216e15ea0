"""Listeners, and the clients that came in by them, as the log and the status know them."""

from __future__ import annotations

import _socket
import select
from marshal import dumps, loads

from tetrad.ipc.access_list import AccessList
from tetrad.system import sockets
from tetrad.system.json_lite import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tetrad.ipc.fd_passing import ClientHandoff
    from tetrad.ipc.runtime_config import ListenerConfig
    from tetrad.system.addresses import Source


_SAVED = (
    "address",
    "connection",
    "family",
    "listener",
    "listener_index",
    "name",
    "proxy_fields",
    "service",
)
"""What the master knows of a client for as long as it is there."""


class Listener:
    """A listening socket and its plan; `name` has the port that it really got.

    From one that `is_forgetful` clients do not inherit the limit on how long their reads block: a
    Unix socket, and one where clients may have come before we set it. Where it `is_behind_proxy`,
    balancers connect, and bring the clients.
    """

    __slots__ = (
        "_balancers",
        "_kind",
        "_poll",
        "config",
        "context",
        "family",
        "index",
        "is_behind_proxy",
        "name",
        "needs_recv_timeout",
        "port",
        "service",
        "socket",
    )

    def __init__(
        self, config: ListenerConfig, socket: _socket.socket, *, inherited: bool = False
    ) -> None:
        self.socket = socket
        self._poll = select.poll()
        self._poll.register(socket.fileno(), select.POLLIN)
        self.port = sockets.bound_port(socket)
        self.name = sockets.bound_name(config["name"], socket)
        self.needs_recv_timeout = inherited or config["family"] == "unix"
        self.configure(config)

    def configure(self, config: ListenerConfig) -> None:
        """Serve clients like this from now on."""
        self.config = config
        self.family, self.index, self.service = config["family"], config["index"], config["service"]
        self._kind = sockets.FAMILIES[self.family]
        proxy = config["proxy"]
        self.is_behind_proxy = proxy is not None
        self._balancers = AccessList(() if proxy is None else proxy["trusted"])
        self.context = members({"service": config["service"], "listener": self.name}).encode()

    def trusts(self, balancer: Source | None) -> bool:
        """Tell whether a balancer is believed; who may use a Unix socket is."""
        return balancer is None or self._balancers.allows(*balancer)

    def accept(self) -> tuple[_socket.socket, object]:
        """Accept a client: its socket and its address. Raises OSError."""
        # `listeners.accept` without a look-up and a call, whose pages each fork would copy.
        fd, address = self.socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        return _socket.socket(self._kind, _socket.SOCK_STREAM, 0, fd), address

    def has_pending(self) -> bool:
        """Tell whether another client waits; True if only `accept` can tell.

        An `accept` that finds nobody ends in an exception, and whoever has come alone waits for it.
        """
        try:
            return self._poll.poll(0) != []
        except OSError:
            return True

    def fields(self) -> dict[str, object]:
        """Return what the log and the status say of it."""
        return {
            "address": self.config["address"],
            "port": self.port,
            "service": self.service,
        }


class Client:
    """A client that was let in.

    `address` is what admission counts it by; `context` is what its events have in the log, as JSON:
    only its handler needs that, and who was dumped has none. One that a balancer has brought has
    `more` fields there: which one did, and how that one calls the connection.
    """

    __slots__ = (*_SAVED, "context")

    def __init__(
        self,
        name: str,
        address: Source | None,
        connection: str,
        listener: Listener,
        more: dict[str, object] | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.connection = connection
        self.family = listener.family
        self.listener_index = listener.index
        self.service = listener.service
        self.listener = listener.name
        # There is nothing in either that would have to be escaped.
        head = f'"client":"{name}","connection":"{connection}",'
        self.context = head.encode() + listener.context
        self.proxy_fields = more
        if more:
            self.context += b"," + members(more).encode()

    @classmethod
    def restore_state(cls, left: dict[str, Any]) -> Client:
        """Return a client that the version before has let in. Raises ValueError."""
        if left.keys() != set(_SAVED):
            raise ValueError(f"a client with {', '.join(sorted(left))}")
        client = cls.__new__(cls)
        for name in _SAVED:
            setattr(client, name, left[name])
        client.context = b""
        return client

    def save_state(self) -> dict[str, Any]:
        """Return all of it as plain data, for the next version."""
        return {name: getattr(self, name) for name in _SAVED}

    @classmethod
    def unpack(cls, data: bytes) -> Client:
        """Return a client that was dumped."""
        return cls.restore_state(dict(zip(_SAVED, loads(data), strict=True)))  # noqa: S302 - our own

    def pack(self) -> bytes:
        """Return all of it in less memory; `address_of` and `load` take that."""
        # Written out: what would go through the names has pages of its own for each fork to copy.
        return dumps(
            (
                self.address,
                self.connection,
                self.family,
                self.listener,
                self.listener_index,
                self.name,
                self.proxy_fields,
                self.service,
            )
        )

    def handoff(self) -> ClientHandoff:
        """Return what a handler has to know, to be sent to one that waits."""
        return self.name, self.family, self.listener_index, self.context, self.connection

    def fields(self) -> dict[str, object]:
        """Return what every line about this client has."""
        return {
            "client": self.name,
            "connection": self.connection,
            "service": self.service,
            "listener": self.listener,
            **(self.proxy_fields or {}),
        }


def packed_address(data: bytes) -> Source | None:
    """Return what admission counts a client by that was dumped."""
    address: Source | None = loads(data)[0]  # noqa: S302 - our own
    return address
