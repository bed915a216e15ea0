"""Deaths of a daemon's processes at each step of what they do, and what is left of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from processes import until
from tetrad.launch import pidfile

from .triggers import (
    DENIED,
    a_client,
    a_new_listener,
    a_refusal,
    a_reopening,
    a_status,
    an_outlook,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _pytest.mark import ParameterSet

    from clients import Client
    from conftest import MakeDaemon
    from daemons import Daemon

    from .strace import Point

GONE_SECONDS = 2.0
"""Within this time everything is gone when the master has died."""

AT_ONCE = 3
"""How many daemons die at the same time: much of it is waiting."""

SETTINGS: dict[str, Any] = {"access": {"deny": [DENIED]}}

SERVING = (a_client, a_refusal, a_status, an_outlook, a_new_listener, a_reopening)
"""What a daemon does in these tests, before it stops."""


def many(count: int) -> ParameterSet:
    """Return a number of deaths that takes a while."""
    return pytest.param(count, marks=[pytest.mark.long, pytest.mark.timeout(300)])


def enough(count: int) -> int:
    """Return how many of so many moments have to be met: no two lives are quite the same."""
    return max(1, count * 95 // 100)


def live(daemon: Daemon, bystander: Client) -> None:
    """Have a daemon do all it can, and stop; it may die of it."""
    with contextlib.suppress(OSError):
        for step in SERVING:
            step(daemon, bystander)
    daemon.signal(signal.SIGTERM)
    assert daemon.is_gone()


def processes_of(daemon: Daemon) -> list[int]:
    """Return all processes that have come of a daemon's start: by the home that they have."""
    home = f"HOME={daemon.environment['HOME']}\0".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if home in file.read():
                found.append(int(pid))
    return found


def seconds_until_gone(daemon: Daemon) -> float:
    """Wait until nothing is left of a daemon whose master is dead, the lock included."""
    began = time.monotonic()
    try:
        until(lambda: not processes_of(daemon), "the end of all others")
    finally:
        for pid in processes_of(daemon):
            os.kill(pid, signal.SIGKILL)
    assert pidfile.look(daemon.pidfile).pid is None
    return time.monotonic() - began


def stop_and_see_off(daemon: Daemon) -> float:
    """Stop a daemon, and return how long the others lived on after the master."""
    daemon.signal(signal.SIGTERM)
    assert daemon.is_gone()
    return seconds_until_gone(daemon)


def die_everywhere(
    make: MakeDaemon, die: Callable[[Daemon, Point], float | None], points: Sequence[Point]
) -> list[float]:
    """Have daemons die at points of their lives, and return how long the others lived on.

    `die` starts a daemon and leaves none; it returns None where the point was not met.
    """
    shares = [points[first::AT_ONCE] for first in range(min(AT_ONCE, len(points)))]
    daemons = [make(**SETTINGS) for _ in shares]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = pool.map(
            lambda daemon, share: [_at_last(die, daemon, point) for point in share], daemons, shares
        )
    seconds = [one for outcome in outcomes for one in outcome if one is not None]
    assert len(seconds) >= enough(len(points))
    for daemon in daemons:
        daemon.may_lose = True
        daemon.start().served().quit()
        daemon.stop()
        _insist_on_whole_lines(daemon)
    return seconds


def _at_last(
    die: Callable[[Daemon, Point], float | None], daemon: Daemon, point: Point
) -> float | None:
    """Try again, once, if a point was not met."""
    seconds = die(daemon, point)
    return die(daemon, point) if seconds is None else seconds


def _insist_on_whole_lines(daemon: Daemon) -> None:
    """See that the log is whole: JSON in every line, the last one too."""
    with open(daemon.log_file, "rb") as file:
        data = file.read()
    assert data.endswith(b"\n")
    assert all("event" in json.loads(line) for line in data.splitlines())
