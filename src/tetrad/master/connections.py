"""Listeners, and the clients that were accepted from them, as the log and the status show them."""

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
"""The attributes of a client that the master keeps as long as the session lasts."""


class Listener:
    """A listening socket and its configuration; `name` has the port that the kernel chose.

    Connections of a listener that `needs_recv_timeout` do not inherit the receive timeout: those of
    a Unix socket, and those that may have come before the timeout was set. Where a listener
    `is_behind_proxy`, balancers connect, and a PROXY header names the client.
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
        """Serve new clients by another configuration."""
        self.config = config
        self.family, self.index, self.service = config["family"], config["index"], config["service"]
        self._kind = sockets.FAMILIES[self.family]
        proxy = config["proxy"]
        self.is_behind_proxy = proxy is not None
        self._balancers = AccessList(() if proxy is None else proxy["trusted"])
        self.context = members({"service": config["service"], "listener": self.name}).encode()

    def trusts(self, balancer: Source | None) -> bool:
        """Tell whether a balancer's header is accepted; at a Unix socket its mode decides."""
        return balancer is None or self._balancers.allows(*balancer)

    def accept(self) -> tuple[_socket.socket, object]:
        """Accept a client: its socket and its address. Raises OSError."""
        # `sockets.accept` without a look-up and a call, whose pages each fork would copy.
        fd, address = self.socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        return _socket.socket(self._kind, _socket.SOCK_STREAM, 0, fd), address

    def has_pending(self) -> bool:
        """Tell whether the backlog has another client; True if only `accept` can tell.

        An `accept` on an empty backlog raises an exception, which delays the client at hand.
        """
        try:
            return self._poll.poll(0) != []
        except OSError:
            return True

    def fields(self) -> dict[str, object]:
        """Return what the log and the status show of a listener."""
        return {
            "address": self.config["address"],
            "port": self.port,
            "service": self.service,
        }


class Client:
    """A client that was admitted.

    `address` is what admission counts it by; `context` is what all of its log lines have in
    common, as JSON: only its handler needs that, and a client that was unpacked has none. A client
    behind a balancer has `proxy_fields` there: the balancer's address, and the balancer's id
    of the connection.
    """

    __slots__ = (*_SAVED, "context")

    def __init__(
        self,
        name: str,
        address: Source | None,
        connection: str,
        listener: Listener,
        proxy_fields: dict[str, object] | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.connection = connection
        self.family = listener.family
        self.listener_index = listener.index
        self.service = listener.service
        self.listener = listener.name
        # No character of these needs to be escaped.
        head = f'"client":"{name}","connection":"{connection}",'
        self.context = head.encode() + listener.context
        self.proxy_fields = proxy_fields
        if proxy_fields:
            self.context += b"," + members(proxy_fields).encode()

    @classmethod
    def restore_state(cls, state: dict[str, Any]) -> Client:
        """Return a client that the version before admitted. Raises ValueError."""
        if state.keys() != set(_SAVED):
            raise ValueError(f"a client with {', '.join(sorted(state))}")
        client = cls.__new__(cls)
        for name in _SAVED:
            setattr(client, name, state[name])
        client.context = b""
        return client

    def save_state(self) -> dict[str, Any]:
        """Return the state for the next version, as plain data."""
        return {name: getattr(self, name) for name in _SAVED}

    @classmethod
    def unpack(cls, data: bytes) -> Client:
        """Return a client that `pack` packed."""
        return cls.restore_state(dict(zip(_SAVED, loads(data), strict=True)))  # noqa: S302 - packed here

    def pack(self) -> bytes:
        """Return the client in less memory, for `unpack` and `packed_address`."""
        # Written out: a loop over the names would touch pages of its own, which each fork copies.
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
        """Return what a handler needs of the client."""
        return self.name, self.family, self.listener_index, self.context, self.connection

    def fields(self) -> dict[str, object]:
        """Return what every log line about the client has."""
        return {
            "client": self.name,
            "connection": self.connection,
            "service": self.service,
            "listener": self.listener,
            **(self.proxy_fields or {}),
        }


def packed_address(data: bytes) -> Source | None:
    """Return the address of a packed client."""
    address: Source | None = loads(data)[0]  # noqa: S302 - packed above
    return address
