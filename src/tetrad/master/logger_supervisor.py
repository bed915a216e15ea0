"""The master's care for the logger: started, given orders, replaced when it dies, seen off."""

from __future__ import annotations

import os
import select
import time

from tetrad.ipc import log_protocol
from tetrad.ipc.fds import EVENTS, JOURNAL, TALLY
from tetrad.ipc.log_counters import LogCounters
from tetrad.system import fork
from tetrad.system.json_lite import encode
from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.ipc.runtime_config import LogConfig
    from tetrad.system.event_loop import EventLoop

RESTART_SECONDS = 1.0
"""The least time between two starts of a logger that keeps dying."""

FAREWELL_SECONDS = 5.0
"""How long the last lines may take to be written when the daemon stops."""


class LoggerSupervisor:
    """Keeps one logger process at work at the end of the pipe."""

    def __init__(self, loop: EventLoop, journal: log_protocol.LogWriter, command: list[str]) -> None:
        self._loop = loop
        self._journal = journal
        self._command = command
        self._pidfd: int | None = None
        self._started = -RESTART_SECONDS
        self._leaving: int | None = None
        self.pid: int | None = None

    def start(self, plan: LogConfig) -> None:
        """Start a logger; what the pipe holds by then is the first that it reads."""
        self._plan = plan
        self._started = time.monotonic()
        orders = encode(plan)
        try:
            self.pid = fork.run_program(
                [*self._command, orders], (EVENTS, TALLY), self._loop.highest, is_deaf=True
            )
        except OSError:
            self._later(self._started, self._restart)
        else:
            self._watch(self.pid)

    def replace(self, plan: LogConfig, pid: int | None) -> None:
        """Have the logger of the version before finish, and start one where it has stopped."""
        if pid is None:
            self.start(plan)
            return
        self.configure(plan)  # for what it has read by the time that it hears that it is to finish
        self.pid = self._leaving = pid
        if fork.has_ended(pid):
            self._on_end()
        else:
            self._journal.insist(log_protocol.ORDER, log_protocol.LEAVE, pid=pid)
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

    def configure(self, plan: LogConfig) -> None:
        """Have lines written like this from here on."""
        self._plan = plan
        self._journal.set_level(plan["level"])
        self._journal.insist(log_protocol.ORDER, log_protocol.CONFIGURE, **plan)

    def reopen(self) -> None:
        """Have the file opened anew."""
        self._journal.insist(log_protocol.ORDER, log_protocol.REOPEN)

    def catch_up(self) -> None:
        """Say what there is to say and had no room, waiting for it: nobody is served any more."""
        if self.pid is None:
            self._restart()
        deadline = time.monotonic() + FAREWELL_SECONDS
        while _is_ready(JOURNAL, select.POLLOUT, deadline):
            self._journal.flush()
            if not self._journal.is_behind:
                break

    def see_off(self) -> None:
        """Close the pipe, after which the logger writes what is in it and ends; wait for that."""
        self.catch_up()
        deadline = time.monotonic() + FAREWELL_SECONDS
        if self.pid is not None and self.pid == self._leaving:
            # What comes behind the order is for the next one.
            self._await_end(self.pid, deadline)
            self._forget()
        if self.pid is None:
            self._restart()
        os.close(JOURNAL)
        while self.pid is not None:
            self._await_end(self.pid, deadline)
            self._forget()
            # One that was killed with lines in the pipe has another one after it.
            if time.monotonic() < deadline and _is_ready(EVENTS, select.POLLIN, 0.0):
                self._restart()

    def _await_end(self, pid: int, deadline: float) -> None:
        """Wait for a logger to finish; one that does not is killed."""
        if self._pidfd is None:
            self._watch(pid)
        if self._pidfd is not None and not _is_ready(self._pidfd, select.POLLIN, deadline):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_end(self) -> None:
        if self.pid is not None and self.pid != LogCounters(TALLY).left:
            # What it had read and not written, nobody can count.
            self._journal.insist(
                "error", log_protocol.LOG_LOST, count=None, why="the logger ended; it is replaced"
            )
        self._forget()
        self._later(self._started, self._restart)

    def _forget(self) -> None:
        if self._pidfd is not None:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
        self.pid = self._pidfd = None

    def _restart(self) -> None:
        self.start(self._plan)

    def _later(self, since: float, action: Callable[[], None]) -> None:
        when = max(time.monotonic(), since + RESTART_SECONDS)
        self._loop.timers.set("logger", when, action)


def _is_ready(fd: int, event: int, deadline: float) -> bool:
    """Wait until a descriptor can be read or written; False at a moment of the monotonic clock."""
    poll = select.poll()
    poll.register(fd, event)
    remaining = max(0.0, deadline - time.monotonic())
    return any(seen & event for _, seen in poll.poll(remaining * 1000))
