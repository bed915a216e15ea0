"""A logger that is killed at any system call: it is replaced, and no line of the log is torn."""

from __future__ import annotations

import functools
import os
import signal
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER
from processes import until

from .kill_points import SETTINGS, die_everywhere, many, stop_and_see_off
from .strace import attached, chosen, needs_strace
from .triggers import a_client, a_refusal, a_reopening

if TYPE_CHECKING:
    from clients import Client
    from conftest import Figure, MakeDaemon
    from daemons import Daemon

    from .strace import Point, Trace

pytestmark = needs_strace

STEPS = 3 * (a_client, a_refusal, a_reopening)
"""What a logger hears of, a batch of lines each."""


def log_something(daemon: Daemon, bystander: Client, trace: Trace) -> None:
    """Have lines for a logger, which may die of them, one batch after another."""

    def has_written(lines: int) -> bool:
        return trace.has_ended or len(daemon.events()) > lines

    for step in STEPS:
        lines = len(daemon.events())
        step(daemon, bystander)
        until(functools.partial(has_written, lines), "more lines")


def insist_on_a_logger(daemon: Daemon) -> None:
    """See that somebody writes the log."""
    client = daemon.served()
    assert daemon.wait_for("client.connected", client=client.name)
    client.quit()


def kill_the_logger(daemon: Daemon, point: Point) -> float | None:
    """Have the logger die while it writes or leaves; a client does not notice."""
    bystander = daemon.start().served()
    with attached(daemon.logger, point.call, point.death) as trace:
        log_something(daemon, bystander, trace)
        if trace.has_ended:
            insist_on_a_logger(daemon)
        assert ANSWER.fullmatch(bystander.ask())
        seconds = stop_and_see_off(daemon)
        until(lambda: trace.has_ended, "the end of strace")
        return seconds if trace.was_killed else None


@pytest.mark.parametrize("count", [3, many(70)])
def test_a_logger_may_die_at_any_call(
    daemon: MakeDaemon, prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """While it writes, opens its file anew, or leaves with the daemon."""
    model = daemon(**SETTINGS)
    bystander = model.served()
    with attached(model.logger) as trace:
        log_something(model, bystander, trace)
        stop_and_see_off(model)
        points = chosen(trace.points(), count)
    figure(f"{len(die_everywhere(prepared, kill_the_logger, points))} deaths")


def kill_the_next_logger(daemon: Daemon, point: Point) -> float | None:
    """Have a logger die as it starts; the one after it works."""
    old = daemon.start().logger
    reports = len(daemon.events("log.lost"))
    with attached(daemon.pid, point.call, point.death, follow=True) as trace:
        os.kill(old, signal.SIGKILL)
        until(
            lambda: trace.was_killed or len(daemon.events("log.lost")) > reports,
            "the first line of the next logger",
        )
        was_killed = trace.was_killed
    insist_on_a_logger(daemon)
    seconds = stop_and_see_off(daemon)
    return seconds if was_killed else None


@pytest.mark.parametrize("count", [1, many(35)])
def test_a_logger_may_die_at_any_call_of_its_start(
    daemon: MakeDaemon, prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """Another one is started, until one lives."""
    model = daemon(**SETTINGS)
    old = model.logger
    with attached(model.pid, follow=True) as trace:
        os.kill(old, signal.SIGKILL)
        model.wait_for("log.lost")
        masters = {point.call for point in trace.points(model.pid)}
        points = [point for point in trace.points(model.logger) if point.call not in masters]
    seconds = die_everywhere(prepared, kill_the_next_logger, chosen(points, count))
    figure(f"{len(seconds)} deaths")
