"""The answers of commands, at a time that the test sets."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tetrad.handler import commands
from tetrad.handler.commands import Clock, Close

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tetrad.ipc.runtime_config import CommandConfig

MOMENT = 1053537514.9
"""2003/05/21 17:18:34.9 UTC, in seconds since 1970."""

FORMAT = "%Y/%m/%d %H:%M:%S"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock, to MOMENT at first."""

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: seconds)

    set_clock(MOMENT)
    return set_clock


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None], None]]:
    """Set the time zone of this process, for the test only."""

    def set_zone(name: str | None) -> None:
        if name is None:
            monkeypatch.delenv("TZ", raising=False)
        else:
            monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def clock(timezone: str, text: str = FORMAT) -> Clock:
    """Return a clock."""
    return Clock({"kind": "clock", "text": text, "timezone": timezone})


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(
    ("timezone", "answer"),
    [
        ("UTC", b"2003/05/21 17:18:34"),
        ("local", b"2003/05/21 12:18:34"),
        ("<KST>-9", b"2003/05/22 02:18:34"),
    ],
)
def test_a_clock_answers_the_time_in_its_zone(
    zone: Callable[[str | None], None], timezone: str, answer: bytes
) -> None:
    """In UTC, the local zone, or a named one, in 19 bytes."""
    zone("<EST>5")
    assert clock(timezone).answer() == answer
    assert len(answer) == 19


@pytest.mark.usefixtures("now")
def test_a_clock_writes_any_format(zone: Callable[[str | None], None]) -> None:
    """Other text stays, in UTF-8, and %Z and %z are those of the zone."""
    zone("<EST>5")
    assert clock("local", "%H時 %Z %z").answer() == "12時 EST -0500".encode()
    assert clock("<KST>-9", "%Z %z").answer() == b"KST +0900"
    assert clock("UTC", "%Z").answer() in {b"UTC", b"GMT"}


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("own", ["<EST>5", None])
def test_a_clock_of_another_zone_restores_the_zone_of_the_process(
    zone: Callable[[str | None], None], own: str | None
) -> None:
    """Whether TZ was set or not."""
    zone(own)
    before = time.localtime(MOMENT)
    clock("<KST>-9").answer()
    assert os.environ.get("TZ") == own
    assert time.localtime(MOMENT) == before


@pytest.mark.usefixtures("now")
def test_a_clock_of_utc_does_not_call_tzset(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no zone information."""
    monkeypatch.setattr(time, "tzset", None)
    assert clock("UTC").answer() == b"2003/05/21 17:18:34"


def test_a_clock_answers_a_new_time_each_second(now: Callable[[float], None]) -> None:
    """Within one second the answer is the same."""
    it = clock("UTC", "%S")
    answers = []
    for moment in (MOMENT, MOMENT + 0.09, MOMENT + 0.1, MOMENT + 1.0, MOMENT - 1.0):
        now(moment)
        answers.append(it.answer())
    assert answers == [b"34", b"34", b"35", b"35", b"33"]


def test_a_clock_formats_the_time_once_per_second(
    now: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand pipelined commands cost one conversion."""
    it = clock("UTC")
    first = it.answer()
    monkeypatch.setattr(time, "strftime", None)
    now(MOMENT + 0.05)
    assert it.answer() is first


def test_close_closes_and_clock_does_not() -> None:
    """Close answers its text in UTF-8."""
    close = Close({"kind": "close", "text": "Bis später", "timezone": ""})
    assert (close.closes, close.answer()) == (True, "Bis später".encode())
    assert clock("UTC").closes is False


def test_commands_are_made_from_the_configuration() -> None:
    """By their names in bytes, each of its configured kind."""
    configs: dict[str, CommandConfig] = {
        "time": {"kind": "clock", "text": "%%", "timezone": "UTC"},
        "quit": {"kind": "close", "text": "bye", "timezone": ""},
    }
    made = commands.make(configs)
    assert {name: type(command) for name, command in made.items()} == {
        b"time": Clock,
        b"quit": Close,
    }
    assert [command.answer() for command in made.values()] == [b"%", b"bye"]
