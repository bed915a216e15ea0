"""The master's care for the logger: started, given orders, replaced when it dies, seen off."""

from __future__ import annotations

import os
import select
import time

from tetrad import events, spawn
from tetrad.descriptors import EVENTS, JOURNAL, TALLY
from tetrad.jsonlines import encode
from tetrad.lean import signal
from tetrad.tally import Tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.loop import Loop
    from tetrad.plan import LogPlan

RESTART_SECONDS = 1.0
"""The least time between two starts of a logger that keeps dying."""

FAREWELL_SECONDS = 5.0
"""How long the last lines may take to be written when the daemon stops."""


class Logkeeper:
    """Keeps one logger process at work at the end of the pipe."""

    def __init__(self, loop: Loop, journal: events.Journal, command: list[str]) -> None:
        self._loop = loop
        self._journal = journal
        self._command = command
        self._pidfd: int | None = None
        self._started = -RESTART_SECONDS
        self._leaving: int | None = None
        self.pid: int | None = None

    def start(self, plan: LogPlan) -> None:
        """Start a logger; what the pipe holds by then is the first that it reads."""
        self._plan = plan
        self._started = time.monotonic()
        orders = encode(plan)
        try:
            self.pid = spawn.run_program(
                [*self._command, orders], (EVENTS, TALLY), self._loop.highest
            )
        except OSError:
            self._later(self._started, self._restart)
        else:
            self._watch(self.pid)

    def replace(self, plan: LogPlan, pid: int | None) -> None:
        """Have the logger of the version before finish, and start one where it has stopped."""
        if pid is None:
            self.start(plan)
            return
        self.configure(plan)  # for what it has read by the time that it hears that it is to finish
        self.pid = self._leaving = pid
        if spawn.has_ended(pid):
            self._on_end()
        else:
            self._journal.insist(events.ORDER, events.LEAVE, pid=pid)
            self._watch(pid)

    def _watch(self, pid: int) -> None:
        """Have its end told; if that cannot be now, then later."""
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._on_end()
        except OSError:
            self._later(time.monotonic(), lambda: self._watch(pid))
        else:
            self._loop.watch(self._pidfd, lambda _pidfd: self._on_end())

    def configure(self, plan: LogPlan) -> None:
        """Have lines written like this from here on."""
        self._plan = plan
        self._journal.set_level(plan["level"])
        self._journal.insist(events.ORDER, events.CONFIGURE, **plan)

    def reopen(self) -> None:
        """Have the file opened anew."""
        self._journal.insist(events.ORDER, events.REOPEN)

    def see_off(self) -> None:
        """Close the pipe, after which the logger writes what is in it and ends; wait for that."""
        self._journal.flush()
        if self.pid is not None and self.pid == self._leaving:
            # What comes behind the order is for the next one.
            self._await_end(self.pid)
            self._on_end()
        if self.pid is None:
            self._restart()
        os.close(JOURNAL)
        if self.pid is not None:
            self._await_end(self.pid)

    def _await_end(self, pid: int) -> None:
        """Wait for a logger to finish; one that does not is killed."""
        if self._pidfd is None:
            self._watch(pid)
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(FAREWELL_SECONDS * 1000):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_end(self) -> None:
        if self._pidfd is not None:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
        if self.pid is not None and self.pid != Tally(TALLY).left:
            # What it had read and not written, nobody can count.
            self._journal.insist(
                "error", events.LOG_LOST, count=None, why="the logger ended; it is replaced"
            )
        self.pid = self._pidfd = None
        self._later(self._started, self._restart)

    def _restart(self) -> None:
        self.start(self._plan)

    def _later(self, since: float, action: Callable[[], None]) -> None:
        when = max(time.monotonic(), since + RESTART_SECONDS)
        self._loop.timers.set("logger", when, action)
