"""Access lists, for every kind of address, and for those who are in when the lists change."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER, Client
from damage import hostile
from processes import PATIENCE_SECONDS

from .strace import attached, needs_strace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Figure, MakeDaemon
    from daemons import Daemon
    from damage.network_namespaces import Network

SLACK_SECONDS = 1.0
"""What the reload itself may take."""

ADDRESSES = ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:0:2::7")
"""What this machine is called in the network of the test, beside 127.0.0.0/8 and ::1."""

ACCESS = {
    "allow": ["127.0.1.0/24", "::ffff:127.0.2.0/120", "2001:db8::/32", "2001:db8:0:2::7"],
    "deny": ["127.0.0.0/8", "127.0.1.7", "::/0", "2001:db8:0:2::/64", "2001:db8:0:1::2"],
}

VERDICTS = {
    "127.0.0.1": False,
    "127.0.1.1": True,
    "127.0.1.7": False,
    "127.0.2.1": True,
    "127.0.3.1": False,
    "::ffff:127.0.1.1": True,
    "::ffff:127.0.1.7": False,
    "::ffff:127.0.3.1": False,
    "::1": False,
    "2001:db8:0:1::1": True,
    "2001:db8:0:1::2": False,
    "2001:db8:0:2::1": False,
    "2001:db8:0:2::7": True,
}


class Town:
    """A daemon in a network of its own, at every kind of address, and clients from everywhere."""

    def __init__(self, network: Network, daemon: Daemon) -> None:
        self.daemon = daemon
        self._network = network
        self._clients: list[Client] = []
        for address in ADDRESSES:
            network.ip("address", "add", f"{address}/128", "dev", "lo", "nodad")

    def start(self, **settings: object) -> None:
        """Start the daemon."""
        self.daemon.configure(**settings)
        self._network.do(self.daemon.start)

    def connect(self, source: str) -> Client:
        """Connect from an address, by its own kind of socket, to the dual-stack listener."""
        if source == "unix":
            return self.daemon.connect_to_path("t.sock")
        host = "::1" if ":" in source else "127.0.0.1"
        if source.startswith("::ffff:"):
            host = "::ffff:127.0.0.1"
        where = (host, self.daemon.port)
        connected = self._network.do(
            lambda: socket.create_connection(where, PATIENCE_SECONDS, (source, 0))
        )
        self._clients.append(Client(connected))
        return self._clients[-1]

    def served(self, source: str) -> Client:
        """Return a client that has had an answer."""
        client = self.connect(source)
        assert ANSWER.fullmatch(client.ask())
        return client

    def close(self) -> None:
        """Have all clients leave."""
        for client in self._clients:
            client.close()


@pytest.fixture
def town(network: Network, prepared: MakeDaemon) -> Iterator[Town]:
    """Prepare a daemon with a dual-stack listener and a Unix socket."""
    listen = [{"address": "::", "port": 0}, {"address": "unix:t.sock"}]
    made = Town(network, prepared(listen=listen))
    yield made
    made.close()


def is_let_in(client: Client) -> bool:
    """Tell whether a client is served."""
    try:
        return bool(ANSWER.fullmatch(client.ask()))
    except ConnectionError:
        return False


def test_the_most_specific_network_decides_for_every_kind_of_address(
    town: Town, figure: Figure
) -> None:
    """IPv4, IPv6 and mapped clients meet their lists, a Unix client none, and `explain` agrees."""
    town.start(access=ACCESS)
    assert {source: is_let_in(town.connect(source)) for source in VERDICTS} == VERDICTS
    assert is_let_in(town.connect("unix"))
    for source in ("127.0.1.7", "::ffff:127.0.1.1", "::ffff:127.0.3.1", ADDRESSES[3]):
        assert (town.daemon.tetrad("explain", source).status == 0) is VERDICTS[source]
    assert town.daemon.status()["refused"]["access"] == list(VERDICTS.values()).count(False)
    figure(f"{len(VERDICTS)} addresses")


def test_neighbours_in_an_ipv6_network_have_one_share(town: Town) -> None:
    """`clients_per_source` counts a /64 as one source, and the next /64 as another."""
    town.start(limits={"clients_per_source": 1})
    town.served("2001:db8:0:1::1")
    sources = ("2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:0:2::7", "127.0.1.1")
    assert [is_let_in(town.connect(source)) for source in sources] == [False, True, False, True]
    mapped = ("::ffff:127.0.1.1", "::ffff:127.0.1.2")
    assert [is_let_in(town.connect(source)) for source in mapped] == [False, True]


IPV4 = {"127.0.1.1", "127.0.1.2"}
MAPPED = {f"::ffff:{source}" for source in IPV4}
EVERYONE = IPV4 | MAPPED | {ADDRESSES[0]}


@pytest.mark.parametrize(
    ("access", "forbidden"),
    [
        ({"deny": ["127.0.1.1"]}, {"127.0.1.1", "::ffff:127.0.1.1"}),
        ({"deny": ["::ffff:127.0.1.2"]}, {"127.0.1.2", "::ffff:127.0.1.2"}),
        (
            {"deny": ["127.0.0.0/8"], "allow": ["127.0.1.2"]},
            EVERYONE - {"127.0.1.2", "::ffff:127.0.1.2"},
        ),
        ({"deny": ["::/0"]}, {ADDRESSES[0]}),
        ({"deny": ["0.0.0.0/0", "::/0"]}, EVERYONE),
        ({"allow": ["2001:db8::/32"]}, IPV4 | MAPPED),
    ],
)
def test_who_is_forbidden_by_a_reload_has_to_leave(
    town: Town, access: dict[str, list[str]], forbidden: set[str]
) -> None:
    """New lists end the sessions that they forbid, of every kind of address, and no other."""
    town.start(handlers={"clients_each": 2})
    clients = {source: town.served(source) for source in (*EVERYONE, "unix")}
    town.daemon.configure(access=access)
    assert town.daemon.tetrad("reload").status == 0
    assert [clients.pop(source).read_all() for source in forbidden] == [b""] * len(forbidden)
    assert all(ANSWER.fullmatch(client.ask()) for client in clients.values())
    town.daemon.wait_for("client.disconnected", count=len(forbidden), reason="stopping")
    assert town.daemon.status()["clients"]["now"] == len(clients)


def test_whatever_they_are_at_they_are_gone_in_time(daemon: MakeDaemon, figure: Figure) -> None:
    """Who is forbidden has `stop_timeout` to finish, within a command or an answer, and no more."""
    session = {"send_timeout": None, "idle_timeout": None}
    served = daemon(
        daemon={"stop_timeout": "500ms"}, session=session, commands=hostile.LONG_COMMAND
    )
    silent, begun, deaf = (served.connect_with_little_room() for _ in range(3))
    begun.say(b"ti")
    hostile.never_read(deaf)
    served.wait_for("client.connected", count=3)
    served.configure(access={"deny": ["127.0.0.0/8"]})
    began = time.monotonic()
    assert served.tetrad("reload").status == 0
    assert silent.read_all() == b""
    assert begun.read_all() == b""
    served.wait_for("client.disconnected", count=3, reason="stopping")
    seconds = time.monotonic() - began
    assert seconds <= 0.5 + SLACK_SECONDS
    figure(f"gone {seconds:.2f} s after the reload was asked for")


@needs_strace
def test_an_order_that_is_not_heard_is_given_again(daemon: MakeDaemon) -> None:
    """A signal that comes just before a handler falls asleep does not wake it."""
    served = daemon()
    client = served.served(source="127.0.0.9")
    served.configure(access={"deny": ["127.0.0.9"]})
    with attached(served.pid, "pidfd_send_signal", "retval=0:when=1") as trace:
        assert served.tetrad("reload").status == 0
        assert client.read_all() == b""
        assert len(trace.points()) > 1
