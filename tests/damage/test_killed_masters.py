"""When a master is killed at any system call, all processes end and the next start works."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.kill_points import (
    GONE_SECONDS,
    SETTINGS,
    exercise_and_stop,
    kill_at_points,
    long_run,
    seconds_until_gone,
)
from tests.support.processes import TIMEOUT_SECONDS, run, until
from tests.support.strace import Point, Trace, attached, needs_strace, select_points, strace

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

pytestmark = needs_strace

WITHOUT_IMPORTS = (
    "!openat,newfstatat,read,lseek,close,ioctl,getdents64,readlink,"
    "mmap,munmap,mprotect,brk,rt_sigaction,futex"
)
"""The calls of a starting program, without those that find and load modules."""

LAUNCHING = [
    "setsid",
    "socketpair",
    *(
        pytest.param(call, marks=pytest.mark.long)
        for call in ("flock", "bind", "listen", "clone", "wait4", "memfd_create", "ftruncate")
    ),
]
"""Calls of the launcher or of the future master, which is killed at the first of them."""


def kill_the_master(daemon: Daemon, point: Point) -> float | None:
    """Kill the master while it serves or stops; return how long other processes lived on."""
    bystander = daemon.start().served()
    with attached(daemon.pid, point.call, point.kill_option) as trace:
        exercise_and_stop(daemon, bystander)
        until(lambda: trace.has_ended, "the end of strace")
        was_killed = trace.was_killed
    seconds = seconds_until_gone(daemon)
    return seconds if was_killed else None


@pytest.mark.parametrize("count", [3, long_run(70)])
def test_all_processes_end_after_the_master_is_killed(
    daemon: MakeDaemon, prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """Killed while serving, reloading, reopening or stopping: all end within two seconds."""
    model = daemon(**SETTINGS)
    bystander = model.served()
    with attached(model.pid) as trace:
        exercise_and_stop(model, bystander)
        points = select_points(trace.points(), count)
    seconds = kill_at_points(prepared, kill_the_master, points)
    figure(f"{len(seconds)} kills, all other processes gone after {max(seconds):.2f} s at most")
    assert max(seconds) <= GONE_SECONDS


def start_under_strace(daemon: Daemon, calls: str, injection: str = "") -> tuple[list[Point], bool]:
    """Start in the foreground under strace; return the calls, and whether it was killed."""
    starts = len(daemon.events("server.started"))
    with tempfile.NamedTemporaryFile(prefix="tetrad-strace-") as file:
        tracer = daemon.run(
            os.path.join(daemon.folder, "output"), strace(file.name, calls, injection)
        )

        def has_started() -> bool:
            return len(daemon.events("server.started")) > starts

        until(lambda: tracer.poll() is not None or has_started(), "the start or its end")
        points = Trace(file.name, tracer).points()
        if has_started():
            os.kill(daemon.events("server.started")[-1]["pid"], signal.SIGTERM)
        return points, tracer.wait(TIMEOUT_SECONDS) == -signal.SIGKILL


def leave_a_killed_master(daemon: Daemon) -> None:
    """Start a daemon and kill the master, so that its files are left."""
    daemon.start().served()
    daemon.signal(signal.SIGKILL)
    assert daemon.is_gone()
    seconds_until_gone(daemon)


def kill_while_it_starts(daemon: Daemon, point: Point) -> float | None:
    """Kill a starting daemon; the next start must work. Return how long processes lived on."""
    _, died = start_under_strace(daemon, point.call, point.kill_option)
    seconds = seconds_until_gone(daemon)
    leave_a_killed_master(daemon)
    return seconds if died else None


@pytest.mark.parametrize("count", [3, long_run(40)])
def test_the_next_start_works_after_a_start_is_killed(
    prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """Killed before and after the launcher executes the master."""
    model = prepared(**SETTINGS)
    leave_a_killed_master(model)
    points, _ = start_under_strace(model, WITHOUT_IMPORTS)
    seconds = kill_at_points(prepared, kill_while_it_starts, select_points(points, count))
    figure(f"{len(seconds)} kills, all other processes gone after {max(seconds):.2f} s at most")
    assert max(seconds) <= GONE_SECONDS


@pytest.mark.parametrize("call", LAUNCHING)
def test_a_killed_launcher_leaves_no_process(prepared: MakeDaemon, call: str) -> None:
    """The start fails, no process is left, and the next start works."""
    model = prepared(**SETTINGS)
    program = [sys.executable, "-m", "tetrad", "start", "-c", model.file]
    ran = run(
        [*strace(os.devnull, call, Point(call, 1).kill_option), "-f", *program], model.environment
    )
    assert ran.status != 0
    assert seconds_until_gone(model) <= GONE_SECONDS
    model.start()
