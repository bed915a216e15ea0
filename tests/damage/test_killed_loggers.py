"""A logger killed at any system call is replaced, and no line of the log is incomplete."""

from __future__ import annotations

import functools
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.kill_points import SETTINGS, kill_at_points, long_run, stop_and_wait
from tests.support.processes import until
from tests.support.strace import attached, needs_strace, select_points
from tests.support.triggers import a_client, a_log_reopen, a_refusal

if TYPE_CHECKING:
    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon
    from tests.support.strace import Point, Trace

pytestmark = needs_strace

STEPS = 3 * (a_client, a_refusal, a_log_reopen)
"""Activities that are logged, a batch of lines each."""


def log_something(daemon: Daemon, bystander: Client, trace: Trace) -> None:
    """Cause log lines, one batch after another; the logger may be killed by any of them."""

    def has_written(lines: int) -> bool:
        return trace.has_ended or len(daemon.events()) > lines

    for step in STEPS:
        lines = len(daemon.events())
        step(daemon, bystander)
        until(functools.partial(has_written, lines), "more lines")


def assert_log_written(daemon: Daemon) -> None:
    """Check that a new session appears in the log."""
    client = daemon.served()
    assert daemon.wait_for("client.connected", client=client.name)
    client.quit()


def kill_the_logger(daemon: Daemon, point: Point) -> float | None:
    """Kill the logger while it writes or exits; a connected client is not affected."""
    bystander = daemon.start().served()
    with attached(daemon.logger, point.call, point.kill_option) as trace:
        log_something(daemon, bystander, trace)
        if trace.has_ended:
            assert_log_written(daemon)
        assert ANSWER.fullmatch(bystander.ask())
        seconds = stop_and_wait(daemon)
        until(lambda: trace.has_ended, "the end of strace")
        return seconds if trace.was_killed else None


@pytest.mark.parametrize("count", [3, long_run(70)])
def test_a_killed_logger_is_replaced(
    daemon: MakeDaemon, prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """Kill loggers while they write, reopen the file, or exit with the daemon."""
    model = daemon(**SETTINGS)
    bystander = model.served()
    with attached(model.logger) as trace:
        log_something(model, bystander, trace)
        stop_and_wait(model)
        points = select_points(trace.points(), count)
    figure(f"{len(kill_at_points(prepared, kill_the_logger, points))} kills")


def kill_the_next_logger(daemon: Daemon, point: Point) -> float | None:
    """Kill a logger while it starts; the next one must work."""
    old = daemon.start().logger
    reports = len(daemon.events("log.lost"))
    with attached(daemon.pid, point.call, point.kill_option, follow=True) as trace:
        os.kill(old, signal.SIGKILL)
        until(
            lambda: trace.was_killed or len(daemon.events("log.lost")) > reports,
            "the first line of the next logger",
        )
        was_killed = trace.was_killed
    assert_log_written(daemon)
    seconds = stop_and_wait(daemon)
    return seconds if was_killed else None


@pytest.mark.parametrize("count", [1, long_run(35)])
def test_a_logger_killed_during_its_start_is_replaced(
    daemon: MakeDaemon, prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """The master starts loggers until one stays alive."""
    model = daemon(**SETTINGS)
    old = model.logger
    with attached(model.pid, follow=True) as trace:
        os.kill(old, signal.SIGKILL)
        model.wait_for("log.lost")
        master_calls = {point.call for point in trace.points(model.pid)}
        points = [point for point in trace.points(model.logger) if point.call not in master_calls]
    seconds = kill_at_points(prepared, kill_the_next_logger, select_points(points, count))
    figure(f"{len(seconds)} kills")
