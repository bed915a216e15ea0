"""Kills a daemon's processes at each of their system calls, and checks what remains."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.processes import until
from tests.support.triggers import (
    DENIED,
    a_client,
    a_log_reopen,
    a_new_listener,
    a_refusal,
    a_source_request,
    a_status,
)
from tetrad.launch import pidfile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _pytest.mark import ParameterSet

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.strace import Point

GONE_SECONDS = 2.0
"""How soon all processes must have ended after the death of the master."""

PARALLEL = 3
"""How many daemons are tested in parallel: most of the time is spent waiting."""

SETTINGS: dict[str, Any] = {"access": {"deny": [DENIED]}}

ACTIVITIES = (a_client, a_refusal, a_status, a_source_request, a_new_listener, a_log_reopen)
"""What a daemon does in these tests before it stops."""


def long_run(count: int) -> ParameterSet:
    """Return a parameter for a number of kills that takes minutes."""
    return pytest.param(count, marks=[pytest.mark.long, pytest.mark.timeout(300)])


def required_kills(count: int) -> int:
    """Return how many of the planned kills must happen: no two runs make the same calls."""
    return max(1, count * 95 // 100)


def exercise_and_stop(daemon: Daemon, bystander: Client) -> None:
    """Have a daemon perform every activity and stop; it may be killed on the way."""
    with contextlib.suppress(OSError):
        for step in ACTIVITIES:
            step(daemon, bystander)
    daemon.signal(signal.SIGTERM)
    assert daemon.is_gone()


def processes_of(daemon: Daemon) -> list[int]:
    """Return all processes of a daemon's start, by their HOME."""
    home = f"HOME={daemon.environment['HOME']}\0".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if home in file.read():
                found.append(int(pid))
    return found


def seconds_until_gone(daemon: Daemon) -> float:
    """Wait until every process of a daemon with a dead master has ended, and the lock is free."""
    began = time.monotonic()
    try:
        until(lambda: not processes_of(daemon), "the end of all other processes")
    finally:
        for pid in processes_of(daemon):
            os.kill(pid, signal.SIGKILL)
    assert pidfile.read_state(daemon.pidfile).pid is None
    return time.monotonic() - began


def stop_and_wait(daemon: Daemon) -> float:
    """Stop a daemon, and return for how many seconds other processes outlived the master."""
    daemon.signal(signal.SIGTERM)
    assert daemon.is_gone()
    return seconds_until_gone(daemon)


def kill_at_points(
    make: MakeDaemon, kill: Callable[[Daemon, Point], float | None], points: Sequence[Point]
) -> list[float]:
    """Kill daemons at these points, and return for how many seconds other processes lived on.

    `kill` starts a daemon, kills it and leaves none; it returns None if the point was not reached.
    """
    shares = [points[first::PARALLEL] for first in range(min(PARALLEL, len(points)))]
    daemons = [make(**SETTINGS) for _ in shares]
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        outcomes = pool.map(
            lambda daemon, share: [_with_retry(kill, daemon, point) for point in share],
            daemons,
            shares,
        )
    seconds = [one for outcome in outcomes for one in outcome if one is not None]
    assert len(seconds) >= required_kills(len(points))
    for daemon in daemons:
        daemon.allow_lost_handlers = True
        daemon.start().served().quit()
        daemon.stop()
        _assert_complete_lines(daemon)
    return seconds


def _with_retry(
    kill: Callable[[Daemon, Point], float | None], daemon: Daemon, point: Point
) -> float | None:
    """Retry once if the point was not reached."""
    seconds = kill(daemon, point)
    return kill(daemon, point) if seconds is None else seconds


def _assert_complete_lines(daemon: Daemon) -> None:
    """Check that every line of the log is complete JSON, the last one included."""
    with open(daemon.log_file, "rb") as file:
        data = file.read()
    assert data.endswith(b"\n")
    assert all("event" in json.loads(line) for line in data.splitlines())
