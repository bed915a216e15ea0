"""The loop of the master: who is called back, and how long it waits."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tetrad.system.event_loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

MONTH_SECONDS = 32 * 86400.0
"""More milliseconds than the kernel's number for them holds."""


@pytest.fixture
def loop() -> EventLoop:
    """A loop that watches nobody yet."""
    return EventLoop()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe with something to read in it."""
    heard, told = os.pipe()
    os.write(told, b"x")
    yield heard, told
    os.close(heard)
    os.close(told)


@pytest.mark.parametrize("seconds", [MONTH_SECONDS, 1e9, 1e300])
def test_a_moment_that_is_years_away_can_be_waited_for(
    loop: EventLoop, pipe: tuple[int, int], seconds: float
) -> None:
    """The kernel cannot wait so long; who has something to say is heard."""
    heard: list[int] = []
    loop.watch(pipe[0], heard.append)
    loop.timers.set("tea", time.monotonic() + seconds, list)
    assert loop.run_once(has_chore=False)
    assert (heard, "tea" in loop.timers) == ([pipe[0]], True)


def test_a_moment_that_has_passed_is_not_waited_for(loop: EventLoop) -> None:
    """What is overdue is done in this turn, though nothing else happens."""
    done: list[str] = []
    loop.timers.set("tea", time.monotonic() - 5.0, lambda: done.append("tea"))
    assert not loop.run_once(has_chore=False)
    assert done == ["tea"]


def test_a_timer_ends_the_wait(loop: EventLoop) -> None:
    """A turn in which nothing else happens lasts until the next moment, and no shorter."""
    done: list[float] = []
    when = time.monotonic() + 0.05
    loop.timers.set("tea", when, lambda: done.append(time.monotonic()))
    while not done:
        assert not loop.run_once(has_chore=False)
    assert done[0] >= when


def test_a_chore_does_not_wait_for_anybody(loop: EventLoop) -> None:
    """Where nothing happens for a moment, that is told, so that the chore is done."""
    loop.timers.set("tea", time.monotonic() + MONTH_SECONDS, list)
    assert not loop.run_once(has_chore=True)


def test_who_is_unwatched_by_another_is_not_called(loop: EventLoop, pipe: tuple[int, int]) -> None:
    """What happened to it in the same turn is not its own any more."""
    other, told = os.pipe()
    os.write(told, b"x")
    heard: list[int] = []

    def hear(fd: int) -> None:
        heard.append(fd)
        for one in (pipe[0], other):
            loop.unwatch(one)

    for fd in (pipe[0], other):
        loop.watch(fd, hear)
    assert loop.run_once(has_chore=False)
    assert not loop.run_once(has_chore=True)
    os.close(other)
    os.close(told)
    assert len(heard) == 1
