"""Changes of the system clock and of daylight saving time affect the answers and nothing else."""

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

from tests.support import hostile_clients as hostile
from tests.support.processes import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

DAY = timedelta(days=1)
YEARS = timedelta(days=20 * 365)
TOLERANCE_SECONDS = 0.5
CLOCK_SECONDS = 5.0
"""How far an answer may differ from the clock on a very busy machine."""

BERLIN = ZoneInfo("Europe/Berlin")

_SHARED = "/dev/shm"  # noqa: S108 - where the C library puts them
_LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"


class Clock:
    """The clock of a daemon started with it, which can be set while the daemon runs."""

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
        # The library sets the last one itself.
        passed = " ".join([*self.environment, "FAKETIME_SHARED"])
        self.environment["TETRAD_PASS_ENVIRONMENT"] = passed

    @property
    def now(self) -> datetime:
        """The time that it shows."""
        return datetime.now(UTC) + self._step

    def step(self, by: timedelta) -> None:
        """Move it forward or back at once."""
        self._step += by
        with open(self._file + ".new", "w", encoding="ascii") as file:
            file.write(f"{self._step.total_seconds():+f}")
        os.replace(self._file + ".new", self._file)

    def set(self, moment: datetime) -> None:
        """Set it to a time."""
        self.step(moment - self.now)

    def shows(self, answer: bytes, zone: ZoneInfo) -> bool:
        """Tell whether an answer is the time that it shows."""
        answered = datetime.strptime(answer.decode(), "%Y/%m/%d %H:%M:%S").replace(tzinfo=zone)
        return abs((answered - self.now).total_seconds()) < CLOCK_SECONDS


class ClockedDaemons:
    """Starts daemons with a clock that can be set."""

    def __init__(self, make: MakeDaemon, library: str) -> None:
        self._make = make
        self._library = library
        self._shared: set[str] = set()

    def start(self, **settings: object) -> tuple[Daemon, Clock]:
        """Start a daemon in the time zone of Berlin."""
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
        """Remove the shared memory that libfaketime leaves when a program calls _exit(2)."""
        for name in self._shared:
            for kind in ("", "sem."):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{_SHARED}/{kind}{name.removeprefix('/')}")


@pytest.fixture
def clocked_daemons(prepared: MakeDaemon) -> Iterator[ClockedDaemons]:
    """Find libfaketime."""
    libraries = glob.glob(_LIBRARIES)
    if not libraries:
        pytest.skip("libfaketime is not installed: apt-get install faketime")
    made = ClockedDaemons(prepared, libraries[0])
    yield made
    made.close()


stepped = pytest.mark.parametrize("step", [DAY, -DAY], ids=["forward", "back"])


@pytest.mark.parametrize(
    "step",
    [DAY, -DAY, YEARS],
    ids=["forward", "back", "to 2038 and on"],
)
def test_sessions_continue_with_the_new_time(
    clocked_daemons: ClockedDaemons, step: timedelta
) -> None:
    """No session ends, answers and log show the new time, and ages do not change."""
    served, clock = clocked_daemons.start(handlers={"spare": 1})
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
    assert 0 <= status["sessions"][0]["age"] <= status["uptime"] < TIMEOUT_SECONDS
    began = datetime.fromtimestamp(status["started"] + status["uptime"], UTC)
    assert abs((began - clock.now).total_seconds()) < CLOCK_SECONDS
    started = datetime.fromtimestamp(status["started"], UTC)
    assert f"  since      {started:%Y-%m-%d %H:%M:%S}" in served.tetrad("status").out


@stepped
def test_deadlines_do_not_depend_on_the_clock(
    clocked_daemons: ClockedDaemons, figure: Figure, step: timedelta
) -> None:
    """Each deadline keeps its length when the clock is set."""
    session = dict.fromkeys(("first_command_timeout", "idle_timeout", "send_timeout"), "800ms")
    served, clock = clocked_daemons.start(session=session, commands=hostile.LONG_COMMAND)
    silent, idle, deaf = (served.connect_with_small_buffers() for _ in range(3))
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
def test_max_duration_does_not_depend_on_the_clock(
    clocked_daemons: ClockedDaemons, step: timedelta
) -> None:
    """`max_duration` keeps its length when the clock is set."""
    served, clock = clocked_daemons.start(session={"max_duration": "800ms"})
    client = served.served()
    clock.step(step)
    assert client.read_all() == b""
    line = served.wait_for("client.disconnected", reason="max_duration")
    assert abs(line["duration"] - 0.8) <= TOLERANCE_SECONDS


@stepped
def test_stop_timeout_does_not_depend_on_the_clock(
    clocked_daemons: ClockedDaemons, step: timedelta
) -> None:
    """`stop_timeout` keeps its length, and the daemon does not exit before its sessions."""
    served, clock = clocked_daemons.start(daemon={"stop_timeout": "800ms"})
    client = served.connect()
    client.send_and_wait(b"ti")
    began = time.monotonic()
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    clock.step(step)
    assert client.read_all() == b""
    assert abs(time.monotonic() - began - 0.8) <= TOLERANCE_SECONDS
    assert served.is_gone()


@stepped
def test_rate_limits_do_not_depend_on_the_clock(
    clocked_daemons: ClockedDaemons, step: timedelta
) -> None:
    """A source over its rate stays refused, another one is admitted."""
    served, clock = clocked_daemons.start(limits={"rate_per_source": "2/h"})
    served.served(source="127.0.0.2")
    clock.step(step)
    served.served(source="127.0.0.2")
    assert served.connect(source="127.0.0.2").is_refused()
    served.served(source="127.0.0.3")
    assert served.status()["refused"]["rate"] == 1


CHANGES = {
    "spring": ("2026-03-29T00:59:50+00:00", b"2026/03/29 01:59:5", b"2026/03/29 03:00:0"),
    "autumn": ("2026-10-25T00:59:50+00:00", b"2026/10/25 02:59:5", b"2026/10/25 02:00:0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_daylight_saving_changes_within_a_session(
    clocked_daemons: ClockedDaemons, change: str
) -> None:
    """An hour is skipped or repeated between two answers in one session.

    This holds for the local time and for a time zone given by name.
    """
    moment, before, after = CHANGES[change]
    named = {"clock": "%Y/%m/%d %H:%M:%S", "timezone": BERLIN.key}
    served, clock = clocked_daemons.start(commands={"zone": named})
    client = served.served()
    clock.set(datetime.fromisoformat(moment))
    assert client.ask().startswith(before)
    assert client.ask(b"zone").startswith(before)
    clock.step(timedelta(seconds=9.7) - (clock.now - datetime.fromisoformat(moment)))
    while not (answer := client.ask()).startswith(after):
        assert answer.startswith(before)
    assert client.ask(b"zone").startswith(after)
