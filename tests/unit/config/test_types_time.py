"""Formats and zones of clocks: what the C library would write something else for is refused."""

from __future__ import annotations

import os
import zoneinfo
from typing import TYPE_CHECKING

import pytest

from tetrad.config.command_model import Clock
from tetrad.config.model import Config
from tetrad.config.types import ClockFormat, CommandName, Timezone
from tetrad.launch import preflight

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

DATABASE = "/usr/share/zoneinfo"
MISSING = "'Asia/Seoul' is not in this machine's time zone database"


@pytest.fixture(autouse=True)
def _no_zone_is_cached() -> Iterator[None]:
    """`zoneinfo` keeps zones, and the folders to look in."""
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()


@pytest.fixture
def database() -> str:
    """Return the folder of the machine's time zone database."""
    if not os.path.isdir(DATABASE):
        pytest.skip("this machine has no time zone database: apt-get install tzdata")
    return DATABASE


@pytest.mark.parametrize("unknown", ["%f", "%N", "%Q", "%:z", "%+", "%-f", "%é", "%E", "%"])
def test_a_conversion_that_the_c_library_does_not_know_is_refused(unknown: str) -> None:
    """It would be answered as it is written."""
    with pytest.raises(ValueError, match="is not a conversion of strftime") as refused:
        ClockFormat.parse(f"%H:%%:%M {unknown}")
    assert str(refused.value).partition(" ")[0] == unknown


@pytest.mark.parametrize("text", ["%%f %-d %_H %010Y %Ey %P %e %n%t%s %^a", "%F %T%z"])
def test_conversions_of_the_c_library_are_accepted(text: str) -> None:
    """Those of POSIX, and those that it has beyond them."""
    assert ClockFormat.parse(text) == text


def test_a_zone_of_the_python_package_alone_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, database: str
) -> None:
    """The C library does not read the package `tzdata`: it would answer UTC with another name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "tzdata" / "zoneinfo" / "Asia"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    (folder / "Seoul").symlink_to(f"{database}/Asia/Seoul")
    zoneinfo.reset_tzpath(to=[])
    assert zoneinfo.ZoneInfo("Asia/Seoul").key == "Asia/Seoul"
    with pytest.raises(ValueError, match=f"^{MISSING}; install the package tzdata$"):
        Timezone.parse("Asia/Seoul")
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    with pytest.raises(ValueError, match=f"^{MISSING}$"):
        Timezone.parse("Asia/Seoul")


def test_a_clock_names_the_file_of_its_zone(database: str) -> None:
    """So the C library reads the file that was found, wherever it looks by itself."""
    zoneinfo.reset_tzpath(to=["/nowhere", database])
    zone = Timezone.parse("Asia/Seoul")
    assert Clock(clock=ClockFormat("%H"), timezone=zone).zone == f":{database}/Asia/Seoul"


@pytest.mark.parametrize(
    ("text", "zone"), [("%H", "UTC"), ("%Es", "UTC0"), ("%%s", "UTC"), ("%H %-s", "UTC0")]
)
def test_a_clock_of_utc_needs_the_zone_for_seconds_since_1970_only(text: str, zone: str) -> None:
    """All other conversions need no change of TZ."""
    assert Clock(clock=ClockFormat.parse(text), timezone=Timezone("UTC")).zone == zone
    local = Clock(clock=ClockFormat.parse(text), timezone=Timezone("local"))
    assert local.zone == "local"


@pytest.mark.parametrize(
    "value", ["", ":", "UTC", "GMT0", "CET-1CEST,M3.5.0,M10.5.0/3", "<-03>3", ":/etc/hostname"]
)
def test_a_tz_that_the_c_library_knows_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Also where there is no database."""
    monkeypatch.setenv("TZ", value)
    zoneinfo.reset_tzpath(to=[])
    assert not list(preflight.zone_problems(Config()))


@pytest.mark.parametrize("value", ["Asia/Seoul", ":Asia/Seoul"])
def test_a_tz_that_is_not_on_this_machine_prevents_a_start(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """As in a container without tzdata. A configuration without local clock does not need it."""
    monkeypatch.setenv("TZ", value)
    zoneinfo.reset_tzpath(to=[])
    expected = f"environment variable TZ: {MISSING}; install the package tzdata"
    assert [one.text for one in preflight.zone_problems(Config())] == [expected]
    utc = Clock(clock=ClockFormat("%H"), timezone=Timezone("UTC"))
    assert not list(preflight.zone_problems(Config(commands={CommandName("time"): utc})))
