"""The lines of a session's commands: a burst, then a rate, and the number of all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ipc.test_log_protocol import Pipe
from tetrad.handler import command_log
from tetrad.handler.command_log import CommandLog
from tetrad.ipc import log_protocol
from tetrad.ipc.log_protocol import LogWriter
from tetrad.system.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = '"command":"time"'


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Set the clock of the module."""
    clock = Clock()
    monkeypatch.setattr(command_log, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a pipe."""
    pipe = Pipe()
    yield pipe
    pipe.close()


def flushed(log: LogWriter, pipe: Pipe) -> list[dict[str, Any]]:
    """Return the events that have been logged since the last call."""
    log.flush()
    return pipe.lines()


def add(commands: CommandLog, count: int) -> None:
    """Add answered commands."""
    commands.add("info", log_protocol.CLIENT_COMMAND, *[FIELDS] * count)


def test_a_burst_and_then_the_rate_is_logged(clock: Clock, pipe: Pipe) -> None:
    """Ten times the count of the rate at once, and later as many as the time allows."""
    log = LogWriter(pipe.writes, "info")
    commands = CommandLog(log, (2, 1), 0)
    add(commands, 30)
    assert len(flushed(log, pipe)) == 20
    clock.now += 1.5
    add(commands, 30)
    assert len(flushed(log, pipe)) == 3
    clock.now += 3600
    add(commands, 30)
    assert len(flushed(log, pipe)) == 20


def test_lines_that_the_log_has_already_use_the_budget(clock: Clock, pipe: Pipe) -> None:
    """Those of the fast path are part of the burst."""
    log = LogWriter(pipe.writes, "info")
    commands = CommandLog(log, (1, 1), 8)
    add(commands, 5)
    assert len(flushed(log, pipe)) == 2
    assert commands.summary_due == clock.now + command_log.SUMMARY_SECONDS


def test_the_number_of_suppressed_lines_is_logged_by_event_and_level(
    clock: Clock, pipe: Pipe
) -> None:
    """Afterwards nothing is due."""
    log = LogWriter(pipe.writes, "info")
    commands = CommandLog(log, (1, 1), 10)
    add(commands, 3)
    clock.now += 0.5
    commands.add("warning", log_protocol.CLIENT_INVALID, FIELDS)
    commands.add("warning", log_protocol.CLIENT_COMMAND, FIELDS)
    assert commands.summary_due == clock.now + 0.5
    commands.summarise()
    lines = flushed(log, pipe)
    assert [(line["level"], line["event"], line["suppressed"]) for line in lines] == [
        ("info", "client.command", 3),
        ("warning", "client.invalid", 1),
        ("warning", "client.command", 1),
    ]
    assert commands.summary_due == NEVER
    commands.summarise()
    assert flushed(log, pipe) == []


def test_a_level_that_is_not_logged_uses_no_budget(clock: Clock, pipe: Pipe) -> None:
    """Nor is it counted."""
    log = LogWriter(pipe.writes, "warning")
    commands = CommandLog(log, (1, 1), 0)
    add(commands, 50)
    assert commands.summary_due == NEVER
    commands.add("warning", log_protocol.CLIENT_INVALID, FIELDS)
    assert len(flushed(log, pipe)) == 1
    assert clock.now == 100.0


def test_without_a_rate_every_line_is_logged(clock: Clock, pipe: Pipe) -> None:
    """Nothing is ever due."""
    log = LogWriter(pipe.writes, "info")
    commands = CommandLog(log, None, 0)
    for _ in range(100):
        add(commands, 10)
        assert len(flushed(log, pipe)) == 10
    assert (commands.summary_due, clock.now) == (NEVER, 100.0)


@given(
    st.tuples(st.integers(1, 10**18), st.sampled_from([1, 60, 3600])),
    st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 40)), max_size=20),
)
def test_every_command_is_logged_or_counted(
    rate: tuple[int, int], added: list[tuple[float, int]]
) -> None:
    """Whatever the rate and the times, lines and suppressed lines add up to what was added."""
    clock, pipe = Clock(), Pipe()
    shown = suppressed = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_log, "monotonic", clock.monotonic)
        log = LogWriter(pipe.writes, "info")
        commands = CommandLog(log, rate, 0)
        for seconds, count in added:
            clock.now += seconds
            add(commands, count)
            shown += len(flushed(log, pipe))
        commands.summarise()
        suppressed = sum(line["suppressed"] for line in flushed(log, pipe))
    pipe.close()
    assert shown + suppressed == sum(count for _, count in added)
    passed = clock.now - 100.0
    assert shown <= 10 * rate[0] + passed * rate[0] / rate[1] + 1
    assert log.lost == 0
