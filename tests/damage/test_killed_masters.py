"""A master that is killed at any system call: nobody survives it, and the next start works."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from processes import PATIENCE_SECONDS, run, until

from .kill_points import GONE_SECONDS, SETTINGS, die_everywhere, live, many, seconds_until_gone
from .strace import Point, Trace, attached, chosen, needs_strace, strace

if TYPE_CHECKING:
    from conftest import Figure, MakeDaemon
    from daemons import Daemon

pytestmark = needs_strace

WITHOUT_IMPORTS = (
    "!openat,newfstatat,read,lseek,close,ioctl,getdents64,readlink,"
    "mmap,munmap,mprotect,brk,rt_sigaction,futex"
)
"""What a program does as it starts, but for the finding and reading of its modules."""

LAUNCHING = [
    "setsid",
    "socketpair",
    *(
        pytest.param(call, marks=pytest.mark.long)
        for call in ("flock", "bind", "listen", "clone", "wait4", "memfd_create", "ftruncate")
    ),
]
"""What the launcher does, or the daemon-to-be, which dies of it."""


def kill_the_master(daemon: Daemon, point: Point) -> float | None:
    """Have the master die while it serves or stops; return how long the others lived on."""
    bystander = daemon.start().served()
    with attached(daemon.pid, point.call, point.death) as trace:
        live(daemon, bystander)
        until(lambda: trace.has_ended, "the end of strace")
        was_killed = trace.was_killed
    seconds = seconds_until_gone(daemon)
    return seconds if was_killed else None


@pytest.mark.parametrize("count", [3, many(70)])
def test_a_master_may_die_at_any_call(
    daemon: MakeDaemon, prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """Serving, reloading, reopening, stopping: all others are gone in two seconds."""
    model = daemon(**SETTINGS)
    bystander = model.served()
    with attached(model.pid) as trace:
        live(model, bystander)
        points = chosen(trace.points(), count)
    seconds = die_everywhere(prepared, kill_the_master, points)
    figure(f"{len(seconds)} deaths, all others gone after {max(seconds):.2f} s at most")
    assert max(seconds) <= GONE_SECONDS


def begin(daemon: Daemon, calls: str, death: str = "") -> tuple[list[Point], bool]:
    """Start under strace, in the foreground; return what was called, and whether it died there."""
    starts = len(daemon.events("server.started"))
    with tempfile.NamedTemporaryFile(prefix="tetrad-strace-") as file:
        tracer = daemon.run(os.path.join(daemon.folder, "output"), strace(file.name, calls, death))

        def has_started() -> bool:
            return len(daemon.events("server.started")) > starts

        until(lambda: tracer.poll() is not None or has_started(), "a start, or the end of it")
        points = Trace(file.name, tracer).points()
        if has_started():
            os.kill(daemon.events("server.started")[-1]["pid"], signal.SIGTERM)
        return points, tracer.wait(PATIENCE_SECONDS) == -signal.SIGKILL


def kill_at_once(daemon: Daemon) -> None:
    """Start it and kill the master, so that what it leaves is there."""
    daemon.start().served()
    daemon.signal(signal.SIGKILL)
    assert daemon.is_gone()
    seconds_until_gone(daemon)


def kill_while_it_starts(daemon: Daemon, point: Point) -> float | None:
    """Have a start die, and another one work; return how long others lived on."""
    _, died = begin(daemon, point.call, point.death)
    seconds = seconds_until_gone(daemon)
    kill_at_once(daemon)
    return seconds if died else None


@pytest.mark.parametrize("count", [3, many(40)])
def test_a_start_may_die_at_any_call(prepared: MakeDaemon, figure: Figure, count: int) -> None:
    """Before and after the step from the front to the master; the next start works."""
    model = prepared(**SETTINGS)
    kill_at_once(model)
    points, _ = begin(model, WITHOUT_IMPORTS)
    seconds = die_everywhere(prepared, kill_while_it_starts, chosen(points, count))
    figure(f"{len(seconds)} deaths, all others gone after {max(seconds):.2f} s at most")
    assert max(seconds) <= GONE_SECONDS


@pytest.mark.parametrize("call", LAUNCHING)
def test_a_launch_may_die_at_any_call(prepared: MakeDaemon, call: str) -> None:
    """The launcher dies, or the daemon-to-be: it is a failure, and nobody is left."""
    model = prepared(**SETTINGS)
    program = [sys.executable, "-m", "tetrad", "start", "-c", model.file]
    ran = run([*strace(os.devnull, call, Point(call, 1).death), "-f", *program], model.environment)
    assert ran.status != 0
    assert seconds_until_gone(model) <= GONE_SECONDS
    model.start()
