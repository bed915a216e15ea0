"""Floods of clients: admitted ones are served, refused ones are counted, and nothing is left."""

from __future__ import annotations

import threading
import time
import tracemalloc
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.support.background_clients import BackgroundClients
from tests.support.clients import ANSWER
from tests.support.processes import in_background, memory_of, until
from tetrad.master.admission import MAX_BUCKETS, Admission, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import Figure, MakeDaemon

LATE_SECONDS = 2.0
"""How long a well-behaved client may wait during a flood."""

LINES_A_SECOND = 10
TABLE_KIB = 16384
"""How much memory the table of sources may use, however many connect."""

HOUR_SECONDS = 3600


def is_served(client: Client) -> bool:
    """Send `quit`, and tell whether it was answered."""
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


def assert_no_clients_left(daemon: Daemon) -> None:
    """Check that no client is left in any counter."""
    until(lambda: not daemon.status()["handlers"]["now"], "the end of all handlers")
    status = daemon.status()
    assert status["clients"]["now"] == 0
    assert status["sessions"] == []
    until(lambda: len(daemon.processes) == 2, "the end of the process that answered")


def refusals(daemon: Daemon) -> tuple[list[Event], int]:
    """Stop the daemon; return the log lines for single refusals, and how many had none."""
    daemon.stop()
    lines = daemon.events("client.refused")
    shown = [line for line in lines if "client" in line]
    return shown, sum(line.get("suppressed", 0) for line in lines)


def assert_lines_limited(shown: list[Event]) -> None:
    """Check that at most ten lines a second were written."""
    first, *_, last = (datetime.fromisoformat(line["timestamp"]) for line in shown)
    assert len(shown) <= LINES_A_SECOND * (1 + (last - first).total_seconds())


def test_clients_beyond_the_limit_are_refused_and_counted(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """With a limit of 50, the first 50 of 500 are served; the log accounts for the other 450."""
    served = daemon(limits={"clients": 50})
    clients = [served.served() for _ in range(50)]
    clients += [served.connect() for _ in range(450)]
    assert all(client.is_refused() for client in clients[50:])
    assert all(ANSWER.fullmatch(client.ask()) for client in clients[:50])
    status = served.status()
    assert status["clients"] == {"now": 50, "peak": 50, "limit": 50}
    assert (status["accepted"], status["refused"]["clients"]) == (50, 450)
    assert sum(status["refused"].values()) == 450
    assert all(client.quit() == b"quit" for client in clients[:50])
    assert_no_clients_left(served)
    shown, hidden = refusals(served)
    assert len(shown) + hidden == 450
    assert {line["reason"] for line in served.events("client.refused")} == {"clients"}
    assert {line["client"] for line in shown} <= {client.name for client in clients[50:]}
    assert_lines_limited(shown)
    figure(f"50 admitted, 450 refused: {len(shown)} lines and {hidden} counted")


def flood(daemon: Daemon, source: str, over: threading.Event) -> Callable[[], int]:
    """Connect from one source in a loop; return a function that stops it and counts."""
    connections = 0

    def connect() -> None:
        nonlocal connections
        while not over.is_set():
            client = daemon.connect(source=source)
            connections += 1
            client.close()

    thread = in_background(connect)

    def stop() -> int:
        over.set()
        thread.join()
        return connections

    return stop


@pytest.mark.parametrize("limit", [{"clients_per_source": 3}, {"rate_per_source": "3/h"}])
def test_a_flood_from_one_source_does_not_affect_other_sources(
    daemon: MakeDaemon, figure: Figure, limit: dict[str, object]
) -> None:
    """While one address floods, the others are served at once, up to the same limit."""
    served = daemon(limits=limit)
    held = [served.served(source="127.0.0.2") for _ in range(3)]
    stop = flood(served, "127.0.0.2", threading.Event())
    waits = []
    for last in range(1, 31):
        for _ in range(3):
            began = time.monotonic()
            assert is_served(served.connect(source=f"127.0.1.{last}"))
            waits.append(time.monotonic() - began)
    connections = stop()
    assert all(ANSWER.fullmatch(client.ask()) for client in held)
    reason = next(iter(limit)).removesuffix("_per_source").replace("clients", "clients_per_source")
    status = served.status()
    assert status["refused"][reason] == sum(status["refused"].values()) == connections
    assert max(waits) < LATE_SECONDS
    assert all(client.quit() == b"quit" for client in held)
    assert_no_clients_left(served)
    shown, hidden = refusals(served)
    assert len(shown) + hidden == connections
    assert {line["client"].partition(":")[0] for line in shown} == {"127.0.0.2"}
    figure(
        f"{connections} refused of one source;"
        f" other clients waited {max(waits) * 1000:.0f} ms at most"
    )


def sources(count: int) -> Iterator[str]:
    """Yield this many loopback addresses."""
    for number in range(count):
        yield f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def test_thousands_of_sources_use_little_memory(daemon: MakeDaemon, figure: Figure) -> None:
    """Each source is served once and remembered; the master grows by 16 MiB at most."""
    served = daemon(limits={"rate_per_source": "1/h"}, handlers={"spare": 2, "clients_each": 1000})
    is_served(served.connect())
    before = memory_of(served.pid)["Rss"]
    for source in sources(3000):
        assert is_served(served.connect(source=source))
    assert not is_served(served.connect(source="127.1.0.0"))
    assert not is_served(served.connect(source="127.1.11.183"))
    growth = memory_of(served.pid)["Rss"] - before
    assert growth <= TABLE_KIB
    served.configure(handlers={"spare": 0})
    assert served.tetrad("reload").status == 0
    assert_no_clients_left(served)
    figure(f"3000 sources: {growth} KiB")


def test_the_table_of_rates_is_bounded(figure: Figure) -> None:
    """The table keeps 65,536 sources at most, the latest ones among them."""
    limits = {
        "clients": 100,
        "clients_per_source": 1,
        "exempt": [],
        "rate_per_source": (1, HOUR_SECONDS),
    }
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    admission = Admission(limits, [])  # type: ignore[arg-type]
    for number in range(70_000):
        source = (32, number)
        assert admission.refusal_reason(source, 0.0) is None
        admission.add_client(source)
        admission.remove_client(source)
    kib = (tracemalloc.get_traced_memory()[0] - before) >> 10
    tracemalloc.stop()
    assert admission.clients == 0
    assert kib <= TABLE_KIB
    latest = (70_000 - MAX_BUCKETS // 2, 69_999)
    assert [admission.refusal_reason((32, number), 0.0) for number in latest] == ["rate"] * 2
    figure(f"{kib} KiB")


def test_a_full_table_does_not_slow_new_sources() -> None:
    """A lookup in a full table does not search it.

    For each source that comes, one expires; that must not require a pass over the table.
    """
    rates = RateLimiter(1, HOUR_SECONDS)
    began = time.monotonic()
    for number in range(3 * MAX_BUCKETS):
        assert rates.consume((32, number), number * HOUR_SECONDS / (MAX_BUCKETS - 1))
    assert len(rates) <= MAX_BUCKETS
    assert time.monotonic() - began < 30


def test_clients_that_disconnect_before_accept_are_counted_out(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """Clients that close before they are accepted are admitted and removed again."""
    served = daemon()
    with BackgroundClients(served.port) as good:
        for _ in range(100):
            served.connect().close()
        until(lambda: served.status()["accepted"] >= 100, "the last of them")
    served.wait_for("client.disconnected", count=100 + good.sessions)
    assert_no_clients_left(served)
    assert served.status()["accepted"] == 100 + good.sessions
    figure(f"the slowest of {good.sessions} background clients took {good.slowest * 1000:.0f} ms")
