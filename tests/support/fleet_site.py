"""Three tetrads, a balancer and clients, each in a network namespace, connected by a switch."""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING

from tests.support.balancer import CONFIGURATION, Balancer
from tests.support.clients import ANSWER, Client
from tests.support.network_namespaces import Network
from tests.support.processes import TIMEOUT_SECONDS, until
from tests.support.session_load import Load

if TYPE_CHECKING:
    import pathlib

    from tests.support.balancer import Line
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.session_load import Outcome

CLIENTS, BALANCER = "192.0.2.20", "192.0.2.10"
"""The addresses of the clients and of the balancer."""

PORT = 65000

TETRADS = {"one": "192.0.2.11", "two": "192.0.2.12", "three": "192.0.2.13"}
"""Their default addresses in the shipped configuration."""

_PAUSE_SECONDS = 0.05
"""The pause of a client between two sessions: time passes while the balancer detects a failure."""

_IN_BOTH_LOGS = ("server", "client", "proxy")


def connect(network: Network) -> Client:
    """Connect to the balancer. Raises OSError."""
    connected = network.do(socket.socket)
    connected.settimeout(TIMEOUT_SECONDS)
    try:
        connected.connect((BALANCER, PORT))
    except OSError:
        connected.close()
        raise
    return Client(connected)


class Switch:
    """A bridge, to which network namespaces are connected."""

    def __init__(self) -> None:
        self._network = Network()
        self._members: list[Network] = []
        self._network.ip("link", "add", "switch", "type", "bridge")
        self._network.ip("link", "set", "switch", "up")

    def join(self, address: str) -> Network:
        """Create a network namespace with this address on the switch."""
        member = Network()
        self._members.append(member)
        port = f"port{len(self._members)}"
        there = ("netns", str(member.thread))
        self._network.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", *there)
        self._network.ip("link", "set", port, "master", "switch", "up")
        member.ip("address", "add", f"{address}/24", "dev", "eth0")
        member.ip("link", "set", "eth0", "up")
        return member

    def close(self) -> None:
        """End all namespaces."""
        for network in (*self._members, self._network):
            network.close()


class Site:
    """Three tetrads and a balancer; `clients` is the network namespace of the clients.

    `more` are further settings of each listener.
    """

    def __init__(
        self,
        switch: Switch,
        prepared: MakeDaemon,
        folder: str,
        configuration: pathlib.Path = CONFIGURATION,
        **more: object,
    ) -> None:
        self._clients: list[Client] = []
        self._networks = {name: switch.join(address) for name, address in TETRADS.items()}
        self.tetrads = {
            name: _tetrad(prepared, address, **more) for name, address in TETRADS.items()
        }
        for name in TETRADS:
            self.start(name)
        self.clients = switch.join(CLIENTS)
        self.balancer = Balancer(switch.join(BALANCER), folder, configuration)

    def start(self, name: str) -> None:
        """Start a tetrad."""
        self._networks[name].do(self.tetrads[name].start)

    def unplug(self, name: str) -> None:
        """Disconnect a tetrad's host: not even its kernel answers any more."""
        self._networks[name].ip("link", "set", "eth0", "down")

    def load(self, clients: int = 6, pause_seconds: float = _PAUSE_SECONDS) -> Load:
        """Return a load of this many clients."""
        return Load(functools.partial(connect, self.clients), clients, pause_seconds)

    def served(self) -> Client:
        """Return a client that has had an answer, and stays connected."""
        client = connect(self.clients)
        self._clients.append(client)
        assert ANSWER.fullmatch(client.ask())
        return client

    def served_by(self, name: str) -> Client:
        """Return such a client whose session is with this tetrad."""
        while self.server_of(client := self.served()) != name:
            assert client.quit() == b"quit"
        return client

    def server_of(self, client: Client) -> str:
        """Return the name of a client's tetrad."""
        return self.balancer.server_of_clients()[client.name]

    def close(self) -> None:
        """Close all clients, and stop the balancer."""
        self._close_clients()
        self.balancer.close()

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()

    def log_lines_of(self, outcomes: list[Outcome]) -> list[Line]:
        """Return the balancer's log line about each session."""
        lines = self.balancer.sessions()
        return [_line_of(outcome, lines) for outcome in outcomes]

    def check_logs(self) -> None:
        """Fail unless each session that reached a tetrad appears in both logs."""
        self._close_clients()
        until(lambda: not self.balancer.server_of_clients(), "the end of all sessions")
        balancer_lines = {line["unique_id"]: line for line in self.balancer.sessions()}
        connected = [
            {**event, "server": name}
            for name, tetrad in self.tetrads.items()
            for event in tetrad.events("client.connected")
        ]
        for field in ("connection", "unique_id"):
            assert len({event[field] for event in connected}) == len(connected), (
                f"duplicate {field}"
            )
        known = [event for event in connected if event["unique_id"] in balancer_lines]
        assert len(connected) - len(known) <= self.balancer.dropped()
        for event in known:
            line = balancer_lines[event["unique_id"]]
            assert {event[field] == line[field] for field in _IN_BOTH_LOGS} == {True}
            assert event["client"].startswith(f"{CLIENTS}:")


def _tetrad(prepared: MakeDaemon, address: str, **more: object) -> Daemon:
    listener = {"address": address, "port": PORT, "proxy": {"trusted": [BALANCER]}}
    return prepared(listen=[listener | more])


def _line_of(outcome: Outcome, lines: list[Line]) -> Line:
    """Return the line about a session: of those with the same port, the one nearest in time."""
    same = [line for line in lines if line["client"] == outcome.client]
    return min(same, key=lambda line: abs(float(line["since"]) - outcome.since))
