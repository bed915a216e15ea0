"""Clocks that are set, and clocks that change with the season: only the answers change."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from damage import hostile
from processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Figure, MakeDaemon
    from daemons import Daemon

DAY = timedelta(days=1)
YEARS = timedelta(days=20 * 365)
TOLERANCE_SECONDS = 0.5
CLOCK_SECONDS = 5.0
"""By how much an answer may differ from the clock, on a machine that is very busy."""

BERLIN = ZoneInfo("Europe/Berlin")

_SHARED = "/dev/shm"  # noqa: S108 - where the C library puts them
_LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"


class Clock:
    """The clock of a daemon that was started with it; it can be set while the daemon runs."""

    def __init__(self, folder: str, library: str) -> None:
        self._file = os.path.join(folder, "clock")
        self._step = timedelta()
        self.step(timedelta())
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": self._file,
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    @property
    def now(self) -> datetime:
        """What it shows."""
        return datetime.now(UTC) + self._step

    def step(self, by: timedelta) -> None:
        """Set it forward or back, at one blow."""
        self._step += by
        with open(self._file + ".new", "w", encoding="ascii") as file:
            file.write(f"{self._step.total_seconds():+f}")
        os.replace(self._file + ".new", self._file)

    def set(self, moment: datetime) -> None:
        """Set it to a moment."""
        self.step(moment - self.now)

    def shows(self, answer: bytes, zone: ZoneInfo) -> bool:
        """Tell whether an answer is the time that it shows."""
        said = datetime.strptime(answer.decode(), "%Y/%m/%d %H:%M:%S").replace(tzinfo=zone)
        return abs((said - self.now).total_seconds()) < CLOCK_SECONDS


class Timekeeper:
    """Starts daemons by a clock that can be set."""

    def __init__(self, make: MakeDaemon, library: str) -> None:
        self._make = make
        self._library = library
        self._shared: set[str] = set()

    def start(self, **settings: object) -> tuple[Daemon, Clock]:
        """Start one, in the time zone of Berlin."""
        daemon = self._make(folder="", **settings)
        clock = Clock(daemon.folder, self._library)
        plain = daemon.environment
        daemon.environment = plain | clock.environment | {"TZ": BERLIN.key}
        daemon.start()
        daemon.environment = plain
        with open(f"/proc/{daemon.pid}/environ", encoding="utf-8") as file:
            variables = dict(line.split("=", 1) for line in file.read().split("\0") if line)
        self._shared.update(variables["FAKETIME_SHARED"].split())
        return daemon, clock

    def close(self) -> None:
        """Take away what the library leaves of programs that end without a word to it."""
        for name in self._shared:
            for kind in ("", "sem."):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{_SHARED}/{kind}{name.removeprefix('/')}")


@pytest.fixture
def timekeeper(prepared: MakeDaemon) -> Iterator[Timekeeper]:
    """Find the library that lies about the time."""
    libraries = glob.glob(_LIBRARIES)
    if not libraries:
        pytest.skip("libfaketime is not installed: install faketime")
    keeper = Timekeeper(prepared, libraries[0])
    yield keeper
    keeper.close()


stepped = pytest.mark.parametrize("step", [DAY, -DAY], ids=["forward", "back"])


@pytest.mark.parametrize(
    "step",
    [DAY, -DAY, YEARS],
    ids=["forward", "back", "to 2038 and on"],
)
def test_no_session_is_cut_and_the_new_time_is_told(
    timekeeper: Timekeeper, step: timedelta
) -> None:
    """When the clock is set, everybody stays, and is told the new time; nobody is any older."""
    served, clock = timekeeper.start(handlers={"spare": 1})
    clients = [served.served() for _ in range(3)]
    assert clock.shows(clients[0].ask(), BERLIN)
    clock.step(step)
    clients += [served.connect() for _ in range(3)]
    assert all(clock.shows(client.ask(), BERLIN) for client in clients)
    last = served.wait_for("client.command", count=10)
    logged = datetime.fromisoformat(last["timestamp"])
    assert abs((logged - clock.now).total_seconds()) < CLOCK_SECONDS
    assert not served.events("client.disconnected")
    status = served.status()
    assert 0 <= status["sessions"][0]["age"] <= status["uptime"] < PATIENCE_SECONDS


@stepped
def test_deadlines_hold(timekeeper: Timekeeper, figure: Figure, step: timedelta) -> None:
    """Each of them is as long as it says, whatever the clock says meanwhile."""
    session = dict.fromkeys(("first_command_timeout", "idle_timeout", "send_timeout"), "800ms")
    served, clock = timekeeper.start(session=session, commands=hostile.LONG_COMMAND)
    silent, idle, deaf = (served.connect_with_little_room() for _ in range(3))
    idle.ask()
    hostile.never_read(deaf)
    clock.step(step)
    assert (silent.read_all(), idle.read_all()) == (b"", b"")
    served.wait_for("client.disconnected", count=3)
    seconds = {line["reason"]: line["duration"] for line in served.events("client.disconnected")}
    assert seconds.keys() == session.keys()
    assert all(abs(lasted - 0.8) <= TOLERANCE_SECONDS for lasted in seconds.values())
    figure(f"0.8 s last {min(seconds.values()):.2f} to {max(seconds.values()):.2f} s")


@stepped
def test_the_longest_duration_holds(timekeeper: Timekeeper, step: timedelta) -> None:
    """`max_duration` is measured by no clock that can be set."""
    served, clock = timekeeper.start(session={"max_duration": "800ms"})
    client = served.served()
    clock.step(step)
    assert client.read_all() == b""
    line = served.wait_for("client.disconnected", reason="max_duration")
    assert abs(line["duration"] - 0.8) <= TOLERANCE_SECONDS


@stepped
def test_a_stop_takes_no_longer(timekeeper: Timekeeper, step: timedelta) -> None:
    """`stop_timeout` holds, and the daemon does not end before its sessions."""
    served, clock = timekeeper.start(daemon={"stop_timeout": "800ms"})
    client = served.connect()
    client.say(b"ti")
    began = time.monotonic()
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    clock.step(step)
    assert client.read_all() == b""
    assert abs(time.monotonic() - began - 0.8) <= TOLERANCE_SECONDS
    assert served.is_gone()


@stepped
def test_rates_are_not_the_clocks(timekeeper: Timekeeper, step: timedelta) -> None:
    """Who has come too fast has to wait as long as before; who has not may come."""
    served, clock = timekeeper.start(limits={"rate_per_source": "2/h"})
    served.served(source="127.0.0.2")
    clock.step(step)
    served.served(source="127.0.0.2")
    assert served.connect(source="127.0.0.2").is_refused()
    served.served(source="127.0.0.3")
    assert served.status()["refused"]["rate"] == 1


CHANGES = {
    "spring": ("2026-03-29T00:59:57+00:00", b"2026/03/29 01:59:5", b"2026/03/29 03:00:0"),
    "autumn": ("2026-10-25T00:59:57+00:00", b"2026/10/25 02:59:5", b"2026/10/25 02:00:0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_summer_time_comes_and_goes_within_a_session(timekeeper: Timekeeper, change: str) -> None:
    """From one second to the next an hour is left out, or told once more, to the same client.

    It is the same for local time and for that of a zone by its name.
    """
    moment, before, after = CHANGES[change]
    named = {"clock": "%Y/%m/%d %H:%M:%S", "timezone": BERLIN.key}
    served, clock = timekeeper.start(commands={"zone": named})
    client = served.served()
    clock.set(datetime.fromisoformat(moment))
    assert client.ask().startswith(before)
    assert client.ask(b"zone").startswith(before)
    while not (answer := client.ask()).startswith(after):
        assert answer.startswith(before)
    assert client.ask(b"zone").startswith(after)
