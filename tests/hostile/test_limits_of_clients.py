"""One source, or many clients that never send a command, do not keep others out."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import in_background, until
from tests.support.proxy_headers import version_2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

PLACES = 20
FLOODER, OTHER = "127.0.0.2", "127.0.0.3"
BALANCED = [{"port": 0}, {"port": 0, "proxy": {"trusted": ["127.0.0.9"]}}]
JUNK_SECONDS = 0.1
"""The flood sends one byte so often, and fills each place that it loses."""

WAIT_SECONDS = 2.0
"""How long another client tries again until it is served."""


def is_served(client: Client) -> bool:
    """Tell whether a client gets an answer."""
    try:
        return ANSWER.fullmatch(client.ask()) is not None
    except ConnectionError:
        return False


def behind_balancer(daemon: Daemon, address: str) -> Client:
    """Return a client whose PROXY header names an address."""
    client = daemon.connect(1, source="127.0.0.9")
    client.send(version_2((address, 1111)))
    return client


def test_one_source_has_half_of_the_places(daemon: MakeDaemon) -> None:
    """By default; another source has the others."""
    served = daemon(limits={"clients": PLACES})
    held = [served.connect(source=FLOODER) for _ in range(PLACES)]
    assert [is_served(client) for client in held] == [True] * 10 + [False] * 10
    assert served.wait_for("client.refused")["reason"] == "clients_per_source"
    assert is_served(served.connect(source=OTHER))


def test_this_host_and_load_balancers_are_not_limited_by_default(daemon: MakeDaemon) -> None:
    """A client that a load balancer names is."""
    served = daemon(limits={"clients": 10}, listen=BALANCED)
    local = [served.connect(source=source) for source in ["127.0.0.1", "127.0.0.9"] * 3]
    assert all(map(is_served, local))
    for client in local:
        assert client.quit() == b"quit"
    until(lambda: not served.status()["clients"]["now"], "the end of the sessions")
    named = [behind_balancer(served, "203.0.113.7") for _ in range(6)]
    assert [is_served(client) for client in named] == [True] * 5 + [False]
    assert is_served(behind_balancer(served, "203.0.113.8"))


@pytest.mark.parametrize("limit", [2, None])
def test_a_given_limit_counts_this_host_too(daemon: MakeDaemon, limit: int | None) -> None:
    """And null is no limit."""
    served = daemon(limits={"clients": 3, "clients_per_source": limit})
    clients = [served.connect() for _ in range(4)]
    assert [is_served(client) for client in clients] == [True] * (limit or 3) + [False] * (
        4 - (limit or 3)
    )
    reason = "clients" if limit is None else "clients_per_source"
    assert served.wait_for("client.refused")["reason"] == reason


@pytest.mark.parametrize("asks_first", [True, False])
def test_invalid_commands_do_not_keep_a_session(daemon: MakeDaemon, *, asks_first: bool) -> None:
    """Neither now and then nor without a pause."""
    names = ("first_command_timeout", "idle_timeout")
    served = daemon(session=dict.fromkeys(names, "400ms"))
    for junk, pause in ((b"x", JUNK_SECONDS), (b"junk" * 1024, 0.0)):
        client = served.connect()
        if asks_first:
            assert is_served(client)
        send_junk(client, junk, pause)
    line = served.wait_for("client.disconnected", count=2, reason=names[asks_first])
    assert line["duration"] < WAIT_SECONDS


def send_junk(client: Client, junk: bytes, pause_seconds: float) -> None:
    """Send junk again and again until the server closes the connection."""
    over = time.monotonic() + 5 * WAIT_SECONDS
    try:
        while time.monotonic() < over:
            client.send(junk)
            time.sleep(pause_seconds)  # the pace of the client
    except ConnectionError:
        return
    pytest.fail("the server does not close the connection")


@pytest.fixture
def flooded(daemon: MakeDaemon) -> Iterator[Daemon]:
    """Return a daemon without a limit for a source, all of whose places one source holds."""
    served = daemon(limits={"clients": PLACES, "clients_per_source": None})
    places = [served.connect(source=FLOODER) for _ in range(PLACES)]
    until(lambda: served.status()["clients"]["now"] == PLACES, "a full daemon")
    over = threading.Event()

    def flood() -> None:
        while not over.wait(JUNK_SECONDS):
            for index, client in enumerate(places):
                try:
                    client.send(b"x")
                except ConnectionError:
                    places[index] = served.connect(source=FLOODER)

    thread = in_background(flood)
    yield served
    over.set()
    thread.join()


def test_clients_without_a_command_give_way_to_others(flooded: Daemon, figure: Figure) -> None:
    """A client of another source is served within seconds, and then stays."""
    staying = served_soon(flooded)
    waits = []
    for _ in range(10):
        began = time.monotonic()
        served_soon(flooded).close()
        waits.append(time.monotonic() - began)
    assert is_served(staying)
    gave_way = flooded.wait_for("client.disconnected", reason="first_command_timeout")
    assert gave_way["client"].startswith(FLOODER)
    assert gave_way["error"] == "no command yet, and limits.clients is almost reached"
    figure(f"served after {sorted(waits)[5]:.3f} s, at most {max(waits):.3f} s")


def served_soon(daemon: Daemon) -> Client:
    """Try until a client of the other source is served."""
    over = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < over:
        client = daemon.connect(source=OTHER)
        if is_served(client):
            return client
        client.close()
    pytest.fail("no place for another source")


def test_clients_that_have_sent_a_command_do_not_give_way(daemon: MakeDaemon) -> None:
    """Idle ones too, however often others are refused."""
    served = daemon(limits={"clients": PLACES, "clients_per_source": None})
    clients = [served.served() for _ in range(PLACES)]
    for _ in range(PLACES):
        assert not is_served(served.connect())
    assert all(map(is_served, clients))
    assert served.events("client.disconnected") == []
