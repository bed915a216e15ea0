"""Injects failures into system calls of a daemon, and measures what they cost."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.processes import descriptors_of, kinds_of, stat_of, title_of, until
from tests.support.strace import attached
from tests.support.triggers import DENIED, a_client, handler_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Client
    from tests.support.daemons import Daemon

SETTINGS: dict[str, Any] = {
    "access": {"deny": [DENIED]},
    "session": {"idle_timeout": "1s"},
}
"""The daemon's settings; `idle_timeout` ends each measurement of CPU time."""

COMPLAINT_EVENTS = {"server.overloaded", "log.lost"}

EARLY_MIDDLE_LATE = ("1", "2..4", "6..8")
"""Which calls fail, in strace's notation: early, in the middle, late. Each is an episode."""

ONCE = ("1",)
"""For calls that a process makes once: the first one fails."""


class Row(NamedTuple):
    """A system call of a process, the errors it can return, and what makes the process call it.

    `transient` errors occur for single calls, `persistent` ones until strace detaches. `a newborn`
    is a handler from its fork on; `the handler` has already answered its client.
    """

    process: str
    call: str
    transient: str
    persistent: str
    trigger: Callable[[Daemon, Client], object] = a_client
    when: tuple[str, ...] = EARLY_MIDDLE_LATE
    settings: dict[str, Any] = {}  # noqa: RUF012 - never modified

    @property
    def pairs(self) -> list[Pair]:
        """One pair for each error."""
        return [Pair(self, error) for error in (*self.transient.split(), *self.persistent.split())]


class Pair(NamedTuple):
    """A row and one of its errors."""

    row: Row
    error: str

    def __str__(self) -> str:
        """Return the name of the test case."""
        row = self.row
        return f"{row.process}, {row.call}, {row.trigger.__name__}, {self.error}"

    @property
    def episodes(self) -> list[str]:
        """Which calls fail; a persistent error also affects all calls after the last of these."""
        *early, late = self.row.when
        is_persistent = self.error in self.row.persistent.split()
        return [*early, late.partition("..")[0] + "+" if is_persistent else late]


class Episode(NamedTuple):
    """The outcome of an episode: failed calls, seconds to recover, CPU share, error events."""

    faults: int
    recovery_seconds: float
    share_of_a_core: float
    complaints: int


class FaultyDaemon:
    """A daemon whose calls fail, and its state before that."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        daemon.allow_lost_handlers = daemon.allow_session_errors = True
        until(lambda: self._state() == self._state(), "a stable state")
        self._baseline = self._state()

    def inject(self, pair: Pair, when: str) -> Episode:
        """Make calls fail while the process is active, and measure the recovery."""
        before = self._complaints()
        other, bystander = self._daemon.served(), self._daemon.served()
        pid = self._target(pair.row.process, bystander)
        follow = pair.row.process == "a newborn"
        persists = follow or when.endswith("+")
        how = f"error={pair.error}:when={when}"
        with attached(pid, pair.row.call, how, follow=follow) as trace:

            def is_over() -> bool:
                pair.row.trigger(self._daemon, bystander)
                assert other.ask(), "an unrelated client is not served any more"
                return trace.injected_failures > 0 if persists else trace.is_over

            until(is_over, f"a failed call of {pair}")
            if persists:
                is_over()  # activity while the calls go on failing
            share = self._share_of_a_core(other) if when == pair.episodes[-1] else 0.0
            faults = trace.injected_failures
        seconds = self._recovery_seconds()
        other.close()
        bystander.close()
        until(
            lambda: self._state() == self._baseline,
            f"the first state: {self._baseline}",
        )
        return Episode(faults, seconds, share, self._complaints() - before)

    def _target(self, process: str, bystander: Client) -> int:
        if process == "the handler":
            return handler_of(self._daemon, bystander)
        return self._daemon.logger if process == "logger" else self._daemon.pid

    def _share_of_a_core(self, other: Client) -> float:
        """Return the CPU share of the busiest process until the idle client is disconnected."""
        assert other.ask()
        began = time.monotonic()
        # A program that is still starting is busy; it has no title yet.
        idle = [pid for pid in self._daemon.processes if title_of(pid).startswith("tetrad: ")]
        before = {pid: _cpu_seconds_of(pid) for pid in idle}
        assert other.read_all() == b""
        spent = [_cpu_seconds_of(pid) - seconds for pid, seconds in before.items()]
        return max(spent) / (time.monotonic() - began)

    def _recovery_seconds(self) -> float:
        """Return how long a new client waits for its answer; its end must appear in the log."""
        began = time.monotonic()
        client = self._daemon.served()
        seconds = time.monotonic() - began
        client.quit()
        self._daemon.wait_for("client.disconnected", client=client.name)
        return seconds

    def _complaints(self) -> int:
        return sum(line["event"] in COMPLAINT_EVENTS for line in self._daemon.events())

    def _state(self) -> list[object]:
        """Return what must be equal before and after."""
        descriptors = [
            kinds_of(descriptors_of(pid)) for pid in (self._daemon.pid, self._daemon.logger)
        ]
        operator = self._daemon.connect_to_path("control.sock")
        operator.send(b"status\n")
        status = json.loads(operator.read_all())
        operator.close()
        handlers = {key: status["handlers"][key] for key in ("now", "idle")}
        return [
            *(sorted(one.values()) for one in descriptors),
            {"clients": status["clients"]["now"], "handlers": handlers},
            len(self._daemon.loggers),
        ]


def _cpu_seconds_of(pid: int) -> float:
    """Return the CPU time of a process in seconds; 0 if it has ended."""
    try:
        user, system = stat_of(pid)[11:13]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
