"""A handler killed at any system call is logged as lost once; no other client is affected."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.kill_points import (
    GONE_SECONDS,
    SETTINGS,
    kill_at_points,
    long_run,
    required_kills,
    stop_and_wait,
)
from tests.support.processes import until
from tests.support.strace import attached, needs_strace, select_points
from tests.support.triggers import a_client, handler_of, tolerant

if TYPE_CHECKING:
    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon
    from tests.support.strace import Point, Trace

FREE_SECONDS = 0.1
"""How soon the client slot of a dead handler is free."""

REQUESTS = 24
"""How many commands the client of a handler to be killed sends."""


def converse(client: Client) -> None:
    """Send commands and quit; the handler may be killed on the way."""
    with tolerant(client):
        if all(client.ask() for _ in range(REQUESTS)):
            client.quit()


def assert_losses(daemon: Daemon, count: int, bystander: Client) -> None:
    """Check that exactly this many handlers are lost so far, and that another client is served."""
    until(lambda: len(daemon.events("handler.lost")) >= count, f"{count} x handler.lost")
    assert len(daemon.events("handler.lost")) == count
    assert ANSWER.fullmatch(bystander.ask())


def counted(daemon: Daemon) -> tuple[int, int]:
    """Return the numbers of clients and handlers from the status."""
    status = daemon.status()
    return status["clients"]["now"], status["handlers"]["now"]


def assert_one_client_left(daemon: Daemon) -> None:
    """Check that one client is left, and that each lost handler was counted once."""
    until(lambda: len(daemon.handlers) == 1, "one handler")
    until(lambda: counted(daemon) == (1, 1), "one client and its handler, as counted")
    status = daemon.status()
    lost = [line["handler"] for line in daemon.events("handler.lost")]
    assert status["handlers"]["lost"] == len(lost) == len(set(lost))
    daemon.allow_lost_handlers = True


def kill_the_handler(daemon: Daemon, point: Point) -> bool:
    """Kill a handler during a session; return whether it was reached."""
    client = daemon.served()
    with attached(handler_of(daemon, client), point.call, point.kill_option) as trace:
        converse(client)
        until(lambda: trace.has_ended, "the end of a session")
        return trace.was_killed


@needs_strace
@pytest.mark.parametrize("count", [5, long_run(90)])
def test_a_handler_killed_during_a_session_is_lost_once(
    daemon: MakeDaemon, figure: Figure, count: int
) -> None:
    """Kill handlers at calls from the first command to `quit`."""
    served = daemon(**SETTINGS)
    bystander, client = served.served(), served.served()
    with attached(handler_of(served, client)) as trace:
        converse(client)
        until(lambda: trace.has_ended, "the end of a session")
        # The last call is the regular exit.
        points = select_points(trace.points()[:-1], count)
    kills = 0
    for point in points:
        kills += kill_the_handler(served, point)
        assert_losses(served, kills, bystander)
    assert_one_client_left(served)
    figure(f"{kills} kills")
    assert kills >= required_kills(len(points))


def connect_until_killed(daemon: Daemon, bystander: Client, trace: Trace) -> None:
    """Connect clients until a handler makes the call at which it is killed.

    Not every session makes every call: the handler of a fast client does not wait.
    """

    def is_killed() -> bool:
        ended = len(daemon.events("client.disconnected"))
        a_client(daemon, bystander)
        until(
            lambda: trace.was_killed or len(daemon.events("client.disconnected")) > ended,
            "the end of a handler",
        )
        return trace.was_killed

    until(is_killed, "a kill")


@needs_strace
def test_a_new_handler_killed_before_its_session_is_lost_once(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """Kill handlers at the first of each call that the master does not make itself."""
    served = daemon(**SETTINGS)
    bystander = served.served()
    with attached(served.pid, follow=True) as trace:
        a_client(served, bystander)
        handler = served.wait_for("client.disconnected")["pid"]
        master_calls = {point.call for point in trace.points(served.pid)} | {"write", "exit_group"}
        calls = {point.call for point in trace.points(handler)} - master_calls
    for kills, call in enumerate(sorted(calls), 1):
        with attached(served.pid, call, "signal=KILL:when=1", follow=True) as trace:
            connect_until_killed(served, bystander, trace)
        assert_losses(served, kills, bystander)
    assert_one_client_left(served)
    figure(f"{len(calls)} kills")


def kill_a_handler_during_a_stop(daemon: Daemon, point: Point) -> float | None:
    """Kill a handler while the daemon stops; return how long other processes lived on."""
    client = daemon.start().served()
    with attached(handler_of(daemon, client), point.call, point.kill_option) as trace:
        seconds = stop_and_wait(daemon)
        return seconds if trace.was_killed else None


@needs_strace
@pytest.mark.parametrize("count", [1, long_run(8)])
def test_a_handler_killed_during_a_stop_does_not_delay_it(
    daemon: MakeDaemon, prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """All processes end in time."""
    model = daemon(**SETTINGS)
    client = model.served()
    with attached(handler_of(model, client)) as trace:
        stop_and_wait(model)
        points = select_points(trace.points(), count)
    seconds = kill_at_points(prepared, kill_a_handler_during_a_stop, points)
    figure(f"{len(seconds)} kills, all other processes gone after {max(seconds):.2f} s at most")
    assert max(seconds) <= GONE_SECONDS


def admitted_client(daemon: Daemon) -> Client | None:
    """Return a client if one is admitted now."""
    client = daemon.connect()
    with contextlib.suppress(OSError):
        if ANSWER.fullmatch(client.ask()):
            return client
    client.close()
    return None


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_the_slot_of_a_killed_handler_is_free_at_once(
    daemon: MakeDaemon, figure: Figure, number: signal.Signals
) -> None:
    """The next client is admitted within 100 ms, whichever signal killed the handler."""
    served = daemon(limits={"clients": 2})
    bystander, client = served.served(), served.served()
    seconds = []
    for kills in range(1, 6):
        assert admitted_client(served) is None
        handler = handler_of(served, client)
        began = time.monotonic()
        os.kill(handler, number)
        next_one = until(lambda: admitted_client(served), "a free slot")
        seconds.append(time.monotonic() - began)
        assert next_one is not None
        client = next_one
        assert_losses(served, kills, bystander)
    client.quit()
    assert_one_client_left(served)
    middle = statistics.median(seconds)
    figure(f"a slot is free after {middle * 1000:.0f} ms, {max(seconds) * 1000:.0f} ms at most")
    # The median: the machine may be busy during one of them.
    assert middle <= FREE_SECONDS
