"""Floods of clients: who is let in is served, who is not is counted, and nothing is left."""

from __future__ import annotations

import threading
import time
import tracemalloc
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER
from damage.background_clients import Regulars
from processes import in_background, memory_of, until
from tetrad.master.admission import MAX_BUCKETS, Admission, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clients import Client
    from conftest import Figure, MakeDaemon
    from daemons import Daemon, Event

LATE_SECONDS = 2.0
"""A good client that waited as long as this was kept out by others."""

LINES_A_SECOND = 10
TABLE_KIB = 16384
"""What the sources that are remembered may take, however many come."""

HOUR_SECONDS = 3600


def is_let_in(client: Client) -> bool:
    """Tell whether a client is served; one that is leaves again."""
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


def assert_all_is_at_rest(daemon: Daemon) -> None:
    """Check that no client is left in any of the counts."""
    until(lambda: not daemon.status()["handlers"]["now"], "the end of all handlers")
    status = daemon.status()
    assert status["clients"]["now"] == 0
    assert status["sessions"] == []
    assert len(daemon.processes) == 2


def refusals(daemon: Daemon) -> tuple[list[Event], int]:
    """Return the lines that a daemon has had for single refusals, and how many had none."""
    daemon.stop()
    lines = daemon.events("client.refused")
    shown = [line for line in lines if "client" in line]
    return shown, sum(line.get("suppressed", 0) for line in lines)


def assert_can_be_read(shown: list[Event]) -> None:
    """Check that there were no more lines than a person can read."""
    first, *_, last = (datetime.fromisoformat(line["timestamp"]) for line in shown)
    assert len(shown) <= LINES_A_SECOND * (1 + (last - first).total_seconds())


def test_as_many_as_allowed_are_in_and_all_others_are_counted(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """Of 500 clients, 50 allowed: the first 50 are served, and the log tells of 450."""
    served = daemon(limits={"clients": 50})
    clients = [served.connect() for _ in range(500)]
    assert all(ANSWER.fullmatch(client.ask()) for client in clients[:50])
    assert all(client.is_refused() for client in clients[50:])
    assert all(ANSWER.fullmatch(client.ask()) for client in clients[:50])
    status = served.status()
    assert status["clients"] == {"now": 50, "peak": 50, "limit": 50}
    assert (status["accepted"], status["refused"]["clients"]) == (50, 450)
    assert sum(status["refused"].values()) == 450
    assert all(client.quit() == b"quit" for client in clients[:50])
    assert_all_is_at_rest(served)
    shown, hidden = refusals(served)
    assert len(shown) + hidden == 450
    assert {line["reason"] for line in served.events("client.refused")} == {"clients"}
    assert {line["client"] for line in shown} <= {client.name for client in clients[50:]}
    assert_can_be_read(shown)
    figure(f"50 in, 450 out: {len(shown)} lines and {hidden} counted")


def flood(daemon: Daemon, source: str, over: threading.Event) -> Callable[[], int]:
    """Connect from one source, again and again, until it is over; return how to stop and count."""
    came = 0

    def come() -> None:
        nonlocal came
        while not over.is_set():
            client = daemon.connect(source=source)
            came += 1
            client.close()

    thread = in_background(come)

    def stop() -> int:
        over.set()
        thread.join()
        return came

    return stop


@pytest.mark.parametrize("limit", [{"clients_per_source": 3}, {"rate_per_source": "3/h"}])
def test_one_source_at_its_limit_keeps_no_other_out(
    daemon: MakeDaemon, figure: Figure, limit: dict[str, object]
) -> None:
    """While one address floods, every other one is served at once, to the same limit."""
    served = daemon(limits=limit)
    held = [served.served(source="127.0.0.2") for _ in range(3)]
    stop = flood(served, "127.0.0.2", threading.Event())
    waits = []
    for last in range(1, 31):
        for _ in range(3):
            began = time.monotonic()
            assert is_let_in(served.connect(source=f"127.0.1.{last}"))
            waits.append(time.monotonic() - began)
    came = stop()
    assert all(ANSWER.fullmatch(client.ask()) for client in held)
    reason = next(iter(limit)).removesuffix("_per_source").replace("clients", "clients_per_source")
    status = served.status()
    assert status["refused"][reason] == sum(status["refused"].values()) == came
    assert max(waits) < LATE_SECONDS
    assert all(client.quit() == b"quit" for client in held)
    assert_all_is_at_rest(served)
    shown, hidden = refusals(served)
    assert len(shown) + hidden == came
    assert {line["client"].partition(":")[0] for line in shown} == {"127.0.0.2"}
    figure(f"{came} refused of one; of the others, the slowest took {max(waits) * 1000:.0f} ms")


def sources(count: int) -> Iterator[str]:
    """Yield so many addresses of this machine."""
    for number in range(count):
        yield f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def test_thousands_of_sources_leave_nothing_behind(daemon: MakeDaemon, figure: Figure) -> None:
    """Each comes once and is served; the master remembers them all, and is hardly larger."""
    served = daemon(limits={"rate_per_source": "1/h"}, handlers={"spare": 2, "clients_each": 1000})
    is_let_in(served.connect())
    before = memory_of(served.pid)["Rss"]
    for source in sources(3000):
        assert is_let_in(served.connect(source=source))
    assert not is_let_in(served.connect(source="127.1.0.0"))
    assert not is_let_in(served.connect(source="127.1.11.183"))
    growth = memory_of(served.pid)["Rss"] - before
    assert growth <= TABLE_KIB
    served.configure(handlers={"spare": 0})
    assert served.tetrad("reload").status == 0
    assert_all_is_at_rest(served)
    figure(f"3000 sources: {growth} KiB")


def test_seventy_thousand_sources_keep_the_table_bounded(figure: Figure) -> None:
    """The rates of no more than 65,536 sources are remembered, those that came last among them."""
    limits = {"clients": 100, "clients_per_source": 1, "rate_per_source": (1, HOUR_SECONDS)}
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


def test_a_full_table_costs_a_newcomer_nothing() -> None:
    """However many are remembered, nobody is looked for among them: a newcomer takes as long.

    For each source that comes one comes to rest, which must not have all gone through.
    """
    rates = RateLimiter(1, HOUR_SECONDS)
    began = time.monotonic()
    for number in range(3 * MAX_BUCKETS):
        assert rates.consume((32, number), number * HOUR_SECONDS / (MAX_BUCKETS - 1))
    assert len(rates) <= MAX_BUCKETS
    assert time.monotonic() - began < 30


def test_a_flood_that_leaves_at_once_leaves_nothing(daemon: MakeDaemon, figure: Figure) -> None:
    """Clients that are gone before they are accepted are let in and out again, all of them."""
    served = daemon()
    with Regulars(served.port) as good:
        for _ in range(100):
            served.connect().close()
        until(lambda: served.status()["accepted"] >= 100, "the last of them")
    served.wait_for("client.disconnected", count=100 + good.sessions)
    assert_all_is_at_rest(served)
    assert served.status()["accepted"] == 100 + good.sessions
    figure(f"the slowest of {good.sessions} good clients took {good.slowest * 1000:.0f} ms")
