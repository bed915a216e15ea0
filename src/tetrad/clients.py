"""Listeners, and the clients that came in by them, as the log and the status know them."""

from __future__ import annotations

from tetrad import listeners
from tetrad.jsonlines import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tetrad.admission import Source
    from tetrad.plan import ListenerPlan

    Packed = tuple[str, str, int, bytes, str]
    """A client as its handler needs it: name, family, its listener's place, context, connection."""


class Listener:
    """A listening socket and its plan; `name` has the port that it really got.

    From one that `is_forgetful` clients do not inherit the limit on how long their reads block: a
    Unix socket, and one where clients may have come before we set it.
    """

    __slots__ = ("context", "is_forgetful", "name", "plan", "port", "socket")

    def __init__(
        self, plan: ListenerPlan, socket: _socket.socket, *, inherited: bool = False
    ) -> None:
        self.socket = socket
        self.port = listeners.port_of(socket)
        self.name = listeners.real_name(plan, socket)
        self.is_forgetful = inherited or plan["family"] == "unix"
        self.configure(plan)

    def configure(self, plan: ListenerPlan) -> None:
        """Serve clients like this from now on."""
        self.plan = plan
        self.context = members({"service": plan["service"], "listener": self.name}).encode()


class Client:
    """A client that was let in.

    `address` is what admission counts it by; `context` is what its events have in the log, as JSON.
    """

    __slots__ = (
        "address",
        "connection",
        "context",
        "family",
        "listener",
        "name",
        "place",
        "service",
    )

    def __init__(
        self, name: str, address: Source | None, connection: str, listener: Listener
    ) -> None:
        self.name = name
        self.address = address
        self.connection = connection
        self.family = listener.plan["family"]
        self.place = listener.plan["place"]
        self.service = listener.plan["service"]
        self.listener = listener.name
        # There is nothing in either that would have to be escaped.
        head = f'"client":"{name}","connection":"{connection}",'
        self.context = head.encode() + listener.context

    def pack(self) -> Packed:
        """Return what a handler has to know, to be sent to one that waits."""
        return self.name, self.family, self.place, self.context, self.connection

    def fields(self) -> dict[str, object]:
        """Return what every line about this client has."""
        return {
            "client": self.name,
            "connection": self.connection,
            "service": self.service,
            "listener": self.listener,
        }
