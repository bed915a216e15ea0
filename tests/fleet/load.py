"""Clients who come through the balancer, a few at a time, and what became of each of them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from clients import ANSWER, ANSWER_BYTES, Client
from processes import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from damage.network_namespaces import Network

ADDRESS = "192.0.2.20"
"""Where the clients are."""

BALANCER = "192.0.2.10"
PORT = 65000


class Outcome(NamedTuple):
    """A session as its client has seen it; `since` is in seconds of the epoch.

    `error` says what went wrong; it is empty for who was served from the first word to the last.
    """

    client: str
    since: float
    error: str


def connect(network: Network) -> Client:
    """Connect to the balancer. Raises OSError."""
    connected = network.do(socket.socket)
    connected.settimeout(PATIENCE_SECONDS)
    try:
        connected.connect((BALANCER, PORT))
    except OSError:
        connected.close()
        raise
    return Client(connected)


class Load:
    """So many clients at once, without a pause, for as long as the context lasts."""

    def __init__(self, network: Network, clients: int) -> None:
        self._network = network
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        self.outcomes: list[Outcome] = []

    def __enter__(self) -> Self:
        """Begin, and wait until some have been served."""
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the last ones finish."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a client waits for ever"

    @property
    def served(self) -> int:
        """How many have been served."""
        return sum(not outcome.error for outcome in list(self.outcomes))

    @property
    def failures(self) -> list[Outcome]:
        """Those that were not served."""
        return [outcome for outcome in list(self.outcomes) if outcome.error]

    def go_on(self, clients: int = 50) -> None:
        """Wait until some more have been served."""
        enough = self.served + clients
        until(lambda: self.served >= enough, f"served clients; not served: {self.failures}")

    def _run(self) -> None:
        while not self._over.is_set():
            self.outcomes.append(_be_served(self._network))


def _be_served(network: Network) -> Outcome:
    since, name = time.time(), ""
    try:
        client = connect(network)
        name = client.name
        with contextlib.closing(client):
            error = _converse(client)
    except OSError as problem:
        error = repr(problem)
    return Outcome(name, since, error)


def _converse(client: Client) -> str:
    """Ask and leave; return what was wrong with the answers."""
    answer = client.ask()
    if not ANSWER.fullmatch(answer):
        return f"{len(answer)} of {ANSWER_BYTES} bytes of an answer"
    rest = client.quit()
    return "" if rest == b"quit" else f"a goodbye of {rest!r}"
