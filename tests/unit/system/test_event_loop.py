"""The master's event loop: which watchers it calls, and how long it waits."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tetrad.system.event_loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

MONTH_SECONDS = 32 * 86400.0
"""In milliseconds, more than the kernel's 32-bit timeout holds."""


@pytest.fixture
def loop() -> EventLoop:
    """Return a loop that watches no descriptor."""
    return EventLoop()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe with a byte in it."""
    reads, writes = os.pipe()
    os.write(writes, b"x")
    yield reads, writes
    os.close(reads)
    os.close(writes)


@pytest.mark.parametrize("seconds", [MONTH_SECONDS, 1e9, 1e300])
def test_a_timer_in_the_far_future_is_accepted(
    loop: EventLoop, pipe: tuple[int, int], seconds: float
) -> None:
    """The kernel cannot wait so long; a descriptor that is readable is still reported."""
    called: list[int] = []
    loop.watch(pipe[0], called.append)
    loop.timers.set("timer", time.monotonic() + seconds, list)
    assert loop.run_once(has_idle_task=False)
    assert (called, "timer" in loop.timers) == ([pipe[0]], True)


def test_an_overdue_timer_runs_at_once(loop: EventLoop) -> None:
    """It runs in this turn, although no descriptor is readable."""
    done: list[str] = []
    loop.timers.set("timer", time.monotonic() - 5.0, lambda: done.append("timer"))
    assert not loop.run_once(has_idle_task=False)
    assert done == ["timer"]


def test_a_timer_ends_the_wait(loop: EventLoop) -> None:
    """Without events, a turn lasts until the timer is due."""
    done: list[float] = []
    when = time.monotonic() + 0.05
    loop.timers.set("timer", when, lambda: done.append(time.monotonic()))
    while not done:
        assert not loop.run_once(has_idle_task=False)
    assert done[0] >= when


def test_with_an_idle_task_the_wait_is_short(loop: EventLoop) -> None:
    """Without events the loop returns False at once, and the caller runs its idle task."""
    loop.timers.set("timer", time.monotonic() + MONTH_SECONDS, list)
    assert not loop.run_once(has_idle_task=True)


def test_a_watcher_that_was_removed_is_not_called(loop: EventLoop, pipe: tuple[int, int]) -> None:
    """Not even for an event of the same turn."""
    other, writes = os.pipe()
    os.write(writes, b"x")
    called: list[int] = []

    def remove_both(fd: int) -> None:
        called.append(fd)
        for watched in (pipe[0], other):
            loop.unwatch(watched)

    for fd in (pipe[0], other):
        loop.watch(fd, remove_both)
    assert loop.run_once(has_idle_task=False)
    assert not loop.run_once(has_idle_task=True)
    os.close(other)
    os.close(writes)
    assert len(called) == 1
