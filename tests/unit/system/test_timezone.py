"""The zone of the process, with files that take the place of /etc/localtime."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tetrad.extension import Context
from tetrad.handler import python_call
from tetrad.handler.commands import Clock
from tetrad.system import timezone

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

DATABASE = "/usr/share/zoneinfo"
SUMMER = 1_784_000_000
"""A moment of July 2026, in seconds since 1970."""


@pytest.fixture
def set_machine_zone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[Callable[[str], None]]:
    """Let the machine's zone be that of a link, which the returned function replaces."""
    if not os.path.isdir(DATABASE):
        pytest.skip("this machine has no time zone database: apt-get install tzdata")
    link = tmp_path / "localtime"
    monkeypatch.setattr(timezone, "_ZONE_FILE", str(link))

    def set_zone(name: str) -> None:
        os.symlink(f"{DATABASE}/{name}", f"{link}.new")
        os.replace(f"{link}.new", link)

    set_zone("Europe/Berlin")
    # The C library itself does not read a file again that TZ names.
    monkeypatch.setenv("TZ", f":{link}")
    time.tzset()
    yield set_zone
    monkeypatch.undo()
    time.tzset()


def test_a_clock_follows_the_zone_of_the_machine(
    set_machine_zone: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the next second on, whatever clocks of other zones have done to the process."""
    now = [float(SUMMER)]
    monkeypatch.setattr(time, "time", lambda: now[0])
    local, named = (
        Clock({"kind": "clock", "text": "%H %Z", "timezone": zone}) for zone in ("local", "<MSK>-3")
    )
    answers = []
    for zone in ("Europe/Berlin", "Asia/Seoul", "Europe/Berlin"):
        set_machine_zone(zone)
        now[0] += 1
        answers += [local.answer(), named.answer()]
    assert answers == [b"05 CEST", b"06 MSK", b"12 KST", b"06 MSK", b"05 CEST", b"06 MSK"]


def test_a_function_sees_the_zone_of_the_machine(set_machine_zone: Callable[[str], None]) -> None:
    """Its process is forked from one that runs for long."""
    timezone.follow_machine()
    set_machine_zone("Asia/Seoul")
    assert python_call.call("tests.unit.system.test_timezone:zone", Context("", "", "")) == b"KST"


def zone(_context: Context) -> str:
    """Return the name of the zone of this process."""
    return time.strftime("%Z", time.localtime(SUMMER))


def test_a_machine_without_zone_file_is_in_utc(
    set_machine_zone: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Also when the file is removed while the process runs."""
    set_machine_zone("Asia/Seoul")
    monkeypatch.delenv("TZ")
    timezone.follow_machine()
    os.unlink(tmp_path / "localtime")
    monkeypatch.setenv("TZ", f":{tmp_path}/localtime")
    timezone.follow_machine()
    assert time.localtime(SUMMER).tm_gmtoff == 0


@pytest.mark.parametrize("zone", ["<X>-9", "UTC0", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_seconds_since_1970_are_the_same_in_every_zone(
    set_machine_zone: Callable[[str], None], zone: str
) -> None:
    """The C library computes `%s` with the zone of the process."""
    set_machine_zone("America/New_York")
    timezone.follow_machine()
    assert timezone.in_zone(zone, "%s", SUMMER) == str(SUMMER)
    assert time.localtime(SUMMER).tm_zone == "EDT"
