"""Episodes of calls that fail in a daemon, and what they cost."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from processes import descriptors_of, kinds_of, stat_of, title_of, until

from .strace import attached
from .triggers import DENIED, a_client, handler_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients import Client
    from daemons import Daemon

SETTINGS: dict[str, Any] = {
    "access": {"deny": [DENIED]},
    "session": {"idle_timeout": "1s"},
}
"""How the daemon is configured; the timeout is the clock of the episodes."""

COMPLAINTS = {"server.overloaded", "log.lost"}

THROUGHOUT = ("1", "2..4", "6..8")
"""Early, in the middle, and late, as strace wants to have it; each is an episode."""

ONCE = ("1",)
"""What a process does once fails the first time or not at all."""


class Row(NamedTuple):
    """A call of a process, how it can fail for a moment or for long, and what leads to it.

    `a newborn` is a handler from its birth on; `the handler` has served its client already.
    """

    process: str
    call: str
    passing: str
    lasting: str
    rouse: Callable[[Daemon, Client], object] = a_client
    when: tuple[str, ...] = THROUGHOUT
    settings: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it

    @property
    def pairs(self) -> list[Pair]:
        """Each way to fail."""
        return [Pair(self, error) for error in (*self.passing.split(), *self.lasting.split())]


class Pair(NamedTuple):
    """A row, and one of its errors."""

    row: Row
    error: str

    def __str__(self) -> str:
        """Return what it is called among the tests."""
        row = self.row
        return f"{row.process}, {row.call}, {row.rouse.__name__}, {self.error}"

    @property
    def episodes(self) -> list[str]:
        """Which calls fail; what fails for long fails from the last of these moments on."""
        *early, late = self.row.when
        is_lasting = self.error in self.row.lasting.split()
        return [*early, late.partition("..")[0] + "+" if is_lasting else late]


class Episode(NamedTuple):
    """What came of calls that failed: how many did, and what it cost."""

    faults: int
    recovery_seconds: float
    share_of_a_core: float
    complaints: int


class Patient:
    """A daemon that suffers, and what it looks like when it is well."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        daemon.may_lose = daemon.may_err = True
        until(lambda: self._state() == self._state(), "rest")
        self._well = self._state()

    def suffer(self, pair: Pair, when: str) -> Episode:
        """Have calls fail while there is something to do, and see what it takes to recover."""
        before = self._complaints()
        witness, bystander = self._daemon.served(), self._daemon.served()
        pid = self._target(pair.row.process, bystander)
        follow = pair.row.process == "a newborn"
        lasts = follow or when.endswith("+")
        how = f"error={pair.error}:when={when}"
        with attached(pid, pair.row.call, how, follow=follow) as trace:

            def is_over() -> bool:
                pair.row.rouse(self._daemon, bystander)
                assert witness.ask(), "a client to whom nothing was done is served no more"
                return trace.faults > 0 if lasts else trace.is_over

            until(is_over, f"a failure of {pair}")
            if lasts:
                is_over()  # there is something to do while it goes on failing
            share = self._share_of_a_core(witness) if when == pair.episodes[-1] else 0.0
            faults = trace.faults
        seconds = self._recovery_seconds()
        witness.close()
        bystander.close()
        until(lambda: self._state() == self._well, f"the state before: {self._well}")
        return Episode(faults, seconds, share, self._complaints() - before)

    def _target(self, process: str, bystander: Client) -> int:
        if process == "the handler":
            return handler_of(self._daemon, bystander)
        return self._daemon.logger if process == "logger" else self._daemon.pid

    def _share_of_a_core(self, witness: Client) -> float:
        """Return how much the busiest process works until the idle witness is sent away."""
        assert witness.ask()
        began = time.monotonic()
        # A program that is only just starting has no title yet, and a lot to do.
        idle = [pid for pid in self._daemon.processes if title_of(pid).startswith("tetrad: ")]
        before = {pid: _cpu_seconds_of(pid) for pid in idle}
        assert witness.read_all() == b""
        spent = [_cpu_seconds_of(pid) - seconds for pid, seconds in before.items()]
        return max(spent) / (time.monotonic() - began)

    def _recovery_seconds(self) -> float:
        """Return how long a client waits for its answer; the log has its end, too."""
        began = time.monotonic()
        client = self._daemon.served()
        seconds = time.monotonic() - began
        client.quit()
        self._daemon.wait_for("client.disconnected", client=client.name)
        return seconds

    def _complaints(self) -> int:
        return sum(line["event"] in COMPLAINTS for line in self._daemon.events())

    def _state(self) -> list[object]:
        """Return what has to be the same before and after."""
        held = [kinds_of(descriptors_of(pid)) for pid in (self._daemon.pid, self._daemon.logger)]
        operator = self._daemon.connect_to_path("control.sock")
        operator.send(b"status\n")
        status = json.loads(operator.read_all())
        operator.close()
        handlers = {key: status["handlers"][key] for key in ("now", "idle")}
        return [
            *(sorted(one.values()) for one in held),
            {"clients": status["clients"]["now"], "handlers": handlers},
            len(self._daemon.loggers),
        ]


def _cpu_seconds_of(pid: int) -> float:
    """Return how long a process has worked; of one that is gone, 0."""
    try:
        user, system = stat_of(pid)[11:13]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
