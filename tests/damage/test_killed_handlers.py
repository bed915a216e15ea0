"""A handler that is killed at any system call: it is lost once, and nobody else notices."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER
from processes import until

from .kill_points import (
    GONE_SECONDS,
    SETTINGS,
    die_everywhere,
    enough,
    many,
    stop_and_see_off,
)
from .strace import attached, chosen, needs_strace
from .triggers import a_client, handler_of, hopeful

if TYPE_CHECKING:
    from clients import Client
    from conftest import Figure, MakeDaemon
    from daemons import Daemon

    from .strace import Point, Trace

FREE_SECONDS = 0.1
"""Within this time the place of a handler that died is free."""

ASKED = 24
"""How often a client asks whose handler is to die."""


def converse(client: Client) -> None:
    """Ask a lot and leave, with a handler that may die of it."""
    with hopeful(client):
        if all(client.ask() for _ in range(ASKED)):
            client.quit()


def insist_on_losses(daemon: Daemon, count: int, bystander: Client) -> None:
    """See that so many handlers were lost by now, and that somebody else is served."""
    until(lambda: len(daemon.events("handler.lost")) >= count, f"{count} x handler.lost")
    assert len(daemon.events("handler.lost")) == count
    assert ANSWER.fullmatch(bystander.ask())


def counted(daemon: Daemon) -> tuple[int, int]:
    """Return how many clients and handlers there are now, as the master has counted them."""
    status = daemon.status()
    return status["clients"]["now"], status["handlers"]["now"]


def insist_on_one_client(daemon: Daemon) -> None:
    """See that all have left but one, and that all who are lost are counted, once."""
    until(lambda: len(daemon.handlers) == 1, "one handler")
    until(lambda: counted(daemon) == (1, 1), "one client and its handler, as counted")
    status = daemon.status()
    lost = [line["handler"] for line in daemon.events("handler.lost")]
    assert status["handlers"]["lost"] == len(lost) == len(set(lost))
    daemon.may_lose = True


def kill_the_handler(daemon: Daemon, point: Point) -> bool:
    """Have a handler die in the course of a session; return whether it did."""
    client = daemon.served()
    with attached(handler_of(daemon, client), point.call, point.death) as trace:
        converse(client)
        until(lambda: trace.has_ended, "the end of a session")
        return trace.was_killed


@needs_strace
@pytest.mark.parametrize("count", [5, many(90)])
def test_a_handler_may_die_at_any_call(daemon: MakeDaemon, figure: Figure, count: int) -> None:
    """From the first command to the goodbye."""
    served = daemon(**SETTINGS)
    bystander, client = served.served(), served.served()
    with attached(handler_of(served, client)) as trace:
        converse(client)
        until(lambda: trace.has_ended, "the end of a session")
        # The last of its calls is the end that it wants.
        points = chosen(trace.points()[:-1], count)
    deaths = 0
    for point in points:
        deaths += kill_the_handler(served, point)
        insist_on_losses(served, deaths, bystander)
    insist_on_one_client(served)
    figure(f"{deaths} deaths")
    assert deaths >= enough(len(points))


def die_in_time(daemon: Daemon, bystander: Client, trace: Trace) -> None:
    """Have clients come, one after another, until a handler makes the call that it dies of.

    Not every session makes every call: whose client is quick has nothing to wait for.
    """

    def dies() -> bool:
        ended = len(daemon.events("client.disconnected"))
        a_client(daemon, bystander)
        until(
            lambda: trace.was_killed or len(daemon.events("client.disconnected")) > ended,
            "the end of a handler",
        )
        return trace.was_killed

    until(dies, "a death")


@needs_strace
def test_a_handler_may_die_as_it_is_born(daemon: MakeDaemon, figure: Figure) -> None:
    """At the first of each of its calls that the master does not make meanwhile."""
    served = daemon(**SETTINGS)
    bystander = served.served()
    with attached(served.pid, follow=True) as trace:
        a_client(served, bystander)
        born = served.wait_for("client.disconnected")["pid"]
        masters = {point.call for point in trace.points(served.pid)} | {"write", "exit_group"}
        calls = {point.call for point in trace.points(born)} - masters
    for deaths, call in enumerate(sorted(calls), 1):
        with attached(served.pid, call, "signal=KILL:when=1", follow=True) as trace:
            die_in_time(served, bystander, trace)
        insist_on_losses(served, deaths, bystander)
    insist_on_one_client(served)
    figure(f"{len(calls)} deaths")


def kill_a_handler_at_the_end(daemon: Daemon, point: Point) -> float | None:
    """Have a handler die while the daemon stops; return how long the others lived on."""
    client = daemon.start().served()
    with attached(handler_of(daemon, client), point.call, point.death) as trace:
        seconds = stop_and_see_off(daemon)
        return seconds if trace.was_killed else None


@needs_strace
@pytest.mark.parametrize("count", [1, many(8)])
def test_a_handler_may_die_while_the_daemon_stops(
    daemon: MakeDaemon, prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """The stop is complete all the same."""
    model = daemon(**SETTINGS)
    client = model.served()
    with attached(handler_of(model, client)) as trace:
        stop_and_see_off(model)
        points = chosen(trace.points(), count)
    seconds = die_everywhere(prepared, kill_a_handler_at_the_end, points)
    figure(f"{len(seconds)} deaths, all others gone after {max(seconds):.2f} s at most")
    assert max(seconds) <= GONE_SECONDS


def let_in(daemon: Daemon) -> Client | None:
    """Return a client, if one is let in now."""
    client = daemon.connect()
    with contextlib.suppress(OSError):
        if ANSWER.fullmatch(client.ask()):
            return client
    client.close()
    return None


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_handler_that_dies_frees_its_place_at_once(
    daemon: MakeDaemon, figure: Figure, number: signal.Signals
) -> None:
    """The next client is let in within 100 ms, whatever it died of."""
    served = daemon(limits={"clients": 2})
    bystander, client = served.served(), served.served()
    seconds = []
    for deaths in range(1, 6):
        assert let_in(served) is None
        handler = handler_of(served, client)
        began = time.monotonic()
        os.kill(handler, number)
        next_one = until(lambda: let_in(served), "the place of the dead")
        seconds.append(time.monotonic() - began)
        assert next_one is not None
        client = next_one
        insist_on_losses(served, deaths, bystander)
    client.quit()
    insist_on_one_client(served)
    middle = statistics.median(seconds)
    figure(f"a place is free after {middle * 1000:.0f} ms, {max(seconds) * 1000:.0f} ms at most")
    # One of them may have met a moment in which the machine was busy with something else.
    assert middle <= FREE_SECONDS
