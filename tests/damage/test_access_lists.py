"""Access lists: every kind of address, and sessions that are open when the lists change."""

from __future__ import annotations

import socket
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.support import hostile_clients as hostile
from tests.support.clients import ANSWER, Client
from tests.support.processes import TIMEOUT_SECONDS
from tests.support.strace import attached, needs_strace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon
    from tests.support.network_namespaces import Network

SLACK_SECONDS = 1.0
"""How long after `stop_timeout` the end of a session may be logged."""

ADDRESSES = ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:0:2::7")
"""Addresses of the test's network, besides 127.0.0.0/8 and ::1."""

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


class Host:
    """A daemon in a network namespace with every kind of address, and clients of each kind."""

    def __init__(self, network: Network, daemon: Daemon) -> None:
        self.daemon = daemon
        self._network = network
        self._clients: list[Client] = []
        for address in ADDRESSES:
            network.ip("address", "add", f"{address}/128", "dev", "lo", "nodad")

    def start(self, **settings: object) -> None:
        """Start the daemon with these settings."""
        self.daemon.configure(**settings)
        self._network.do(self.daemon.start)

    def connect(self, source: str) -> Client:
        """Connect from an address to the dual-stack listener, by the address's own family."""
        if source == "unix":
            return self.daemon.connect_to_path("t.sock")
        host = "::1" if ":" in source else "127.0.0.1"
        if source.startswith("::ffff:"):
            host = "::ffff:127.0.0.1"
        where = (host, self.daemon.port)
        connected = self._network.do(
            lambda: socket.create_connection(where, TIMEOUT_SECONDS, (source, 0))
        )
        self._clients.append(Client(connected))
        return self._clients[-1]

    def served(self, source: str) -> Client:
        """Return a client that has had an answer."""
        client = self.connect(source)
        assert ANSWER.fullmatch(client.ask())
        return client

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            client.close()


@pytest.fixture
def host(network: Network, prepared: MakeDaemon) -> Iterator[Host]:
    """Create a daemon with a dual-stack listener and a Unix socket, not started yet."""
    listen = [{"address": "::", "port": 0}, {"address": "unix:t.sock"}]
    made = Host(network, prepared(listen=listen))
    yield made
    made.close()


def is_served(client: Client) -> bool:
    """Tell whether a client gets an answer."""
    try:
        return bool(ANSWER.fullmatch(client.ask()))
    except ConnectionError:
        return False


def test_the_most_specific_network_decides_for_every_kind_of_address(
    host: Host, figure: Figure
) -> None:
    """Lists apply to IPv4, IPv6 and mapped addresses, not to Unix clients; `explain` agrees."""
    host.start(access=ACCESS)
    assert {source: is_served(host.connect(source)) for source in VERDICTS} == VERDICTS
    assert is_served(host.connect("unix"))
    for source in ("127.0.1.7", "::ffff:127.0.1.1", "::ffff:127.0.3.1", ADDRESSES[3]):
        assert (host.daemon.tetrad("explain", source).status == 0) is VERDICTS[source]
    assert host.daemon.status()["refused"]["access"] == list(VERDICTS.values()).count(False)
    figure(f"{len(VERDICTS)} addresses")


def test_addresses_of_one_ipv6_64_share_a_limit(host: Host) -> None:
    """`clients_per_source` counts a /64 as one source, and the next /64 as another."""
    host.start(limits={"clients_per_source": 1})
    host.served("2001:db8:0:1::1")
    sources = ("2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:0:2::7", "127.0.1.1")
    assert [is_served(host.connect(source)) for source in sources] == [
        False,
        True,
        False,
        True,
    ]
    mapped = ("::ffff:127.0.1.1", "::ffff:127.0.1.2")
    assert [is_served(host.connect(source)) for source in mapped] == [False, True]


IPV4 = {"127.0.1.1", "127.0.1.2"}
MAPPED = {f"::ffff:{source}" for source in IPV4}
ALL_SOURCES = IPV4 | MAPPED | {ADDRESSES[0]}


@pytest.mark.parametrize(
    ("access", "denied"),
    [
        ({"deny": ["127.0.1.1"]}, {"127.0.1.1", "::ffff:127.0.1.1"}),
        ({"deny": ["::ffff:127.0.1.2"]}, {"127.0.1.2", "::ffff:127.0.1.2"}),
        (
            {"deny": ["127.0.0.0/8"], "allow": ["127.0.1.2"]},
            ALL_SOURCES - {"127.0.1.2", "::ffff:127.0.1.2"},
        ),
        ({"deny": ["::/0"]}, {ADDRESSES[0]}),
        ({"deny": ["0.0.0.0/0", "::/0"]}, ALL_SOURCES),
        ({"allow": ["2001:db8::/32"]}, IPV4 | MAPPED),
    ],
)
def test_a_reload_ends_the_sessions_that_it_denies(
    host: Host, access: dict[str, list[str]], denied: set[str]
) -> None:
    """New lists end the sessions that they deny, of every kind of address, and no others."""
    host.start(handlers={"clients_each": 2})
    clients = {source: host.served(source) for source in (*ALL_SOURCES, "unix")}
    host.daemon.configure(access=access)
    assert host.daemon.tetrad("reload").status == 0
    assert [clients.pop(source).read_all() for source in denied] == [b""] * len(denied)
    assert all(ANSWER.fullmatch(client.ask()) for client in clients.values())
    host.daemon.wait_for("client.disconnected", count=len(denied), reason="access")
    assert host.daemon.status()["clients"]["now"] == len(clients)


def test_denied_sessions_end_within_stop_timeout(daemon: MakeDaemon, figure: Figure) -> None:
    """A denied session has `stop_timeout` to finish, also inside a command or an answer."""
    session = {"send_timeout": None, "idle_timeout": None}
    served = daemon(
        daemon={"stop_timeout": "500ms"}, session=session, commands=hostile.LONG_COMMAND
    )
    silent, partial, deaf = (served.connect_with_small_buffers() for _ in range(3))
    partial.send_and_wait(b"ti")
    hostile.never_read(deaf)
    served.wait_for("client.connected", count=3)
    served.configure(access={"deny": ["127.0.0.0/8"]})
    assert served.tetrad("reload").status == 0
    assert silent.read_all() == b""
    assert partial.read_all() == b""
    last = served.wait_for("client.disconnected", count=3, reason="access")
    reloaded = served.wait_for("server.reloaded")
    began, end = (datetime.fromisoformat(line["timestamp"]) for line in (reloaded, last))
    seconds = (end - began).total_seconds()
    assert seconds <= 0.5 + SLACK_SECONDS
    figure(f"ended {seconds:.2f} s after the reload")


@needs_strace
def test_a_handler_that_misses_its_signal_is_signalled_again(daemon: MakeDaemon) -> None:
    """A signal that arrives just before a handler waits does not interrupt the wait."""
    served = daemon()
    client = served.served(source="127.0.0.9")
    served.configure(access={"deny": ["127.0.0.9"]})
    with attached(served.pid, "kill", "retval=0:when=1") as trace:
        assert served.tetrad("reload").status == 0
        assert client.read_all() == b""
        assert len(trace.points()) > 1
