"""The logger's supervisor: starts the logger, sends it orders, replaces it, and stops it last."""

from __future__ import annotations

import os
import select
import time

from tetrad.ipc import log_protocol
from tetrad.ipc.fds import EVENTS_READ, EVENTS_WRITE, LOG_COUNTERS
from tetrad.ipc.log_counters import LogCounters
from tetrad.master.helper_process import REPLACED_HINT
from tetrad.system import fork
from tetrad.system.json_lite import encode
from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.ipc.runtime_config import LogConfig
    from tetrad.master.standard_streams import StandardStreams
    from tetrad.system.event_loop import EventLoop

RESTART_SECONDS = 1.0
"""The least time between two starts of the logger."""

FINAL_FLUSH_SECONDS = 5.0
"""The time that the last events have to reach the log when the daemon stops."""


class LoggerSupervisor:
    """Keeps one logger process running at the read end of the event pipe."""

    def __init__(
        self,
        loop: EventLoop,
        log: log_protocol.LogWriter,
        command: list[str],
        streams: StandardStreams,
    ) -> None:
        self._loop = loop
        self._log = log
        self._command = command
        self._streams = streams
        self._pidfd: int | None = None
        self._started = -RESTART_SECONDS
        self._exiting_pid: int | None = None
        self._has_crashed = False
        self.pid: int | None = None

    @property
    def running_pid(self) -> int | None:
        """The pid of the logger; None if there is none, or if one that crashed has no successor.

        The successor is a process from its fork on, and a logger once it is ready.
        """
        is_ready = not self._has_crashed or self.pid == LogCounters(LOG_COUNTERS).started_pid
        return self.pid if is_ready else None

    def start(self, config: LogConfig) -> None:
        """Start a logger, which reads what is in the event pipe first."""
        self._config = config
        self._started = time.monotonic()
        command = [*self._command, encode(config)]
        try:
            self.pid = fork.run_program(
                command,
                (EVENTS_READ, LOG_COUNTERS),
                self._loop.highest_fd,
                self._streams.stderr,
            )
        except OSError:
            self._schedule(self._started, self._restart)
        else:
            self._watch(self.pid)

    def take_over(self, config: LogConfig, pid: int | None) -> None:
        """Have the logger of the version before exit, and start one that continues its reading."""
        if pid is None:
            self.start(config)
            return
        self.configure(config)  # for the events that the old logger reads before the order to exit
        self.pid = self._exiting_pid = pid
        if fork.has_exited(pid):
            self._on_exit()
        else:
            self._send_order(log_protocol.LOGGER_EXIT, pid=pid)
            self._watch(pid)

    def _watch(self, pid: int) -> None:
        """Watch for the exit of a logger; without a pidfd, look once per RESTART_SECONDS."""
        try:
            self._pidfd = fork.open_pidfd(pid)
        except OSError:
            if fork.has_exited(pid):
                self._on_exit()
            else:
                self._schedule(time.monotonic(), lambda: self._watch(pid))
        else:
            self._loop.watch(self._pidfd, lambda _pidfd: self._on_exit())

    def configure(self, config: LogConfig) -> None:
        """Have the events that follow written by another configuration."""
        self._log.set_level(config["level"])
        self._config = config
        self._send_order(log_protocol.LOGGER_CONFIGURE, **config)

    def reopen(self) -> None:
        """Have the logger reopen the log file."""
        self._send_order(log_protocol.LOGGER_REOPEN)

    def _send_order(self, order: str, **fields: object) -> None:
        self._log.enqueue_reliable(log_protocol.LOGGER_ORDER, order, **fields)

    def flush_pending(self) -> None:
        """Write the events that had no room in the pipe, waiting for it: no client is left."""
        if self.pid is None:
            self._restart()
        deadline = time.monotonic() + FINAL_FLUSH_SECONDS
        while _is_ready(EVENTS_WRITE, select.POLLOUT, deadline):
            self._log.flush()
            if not self._log.has_backlog:
                break

    def shut_down(self) -> None:
        """Close the event pipe, and wait until the logger has written what is in it."""
        self.flush_pending()
        deadline = time.monotonic() + FINAL_FLUSH_SECONDS
        if self.pid is not None and self.pid == self._exiting_pid:
            # The events behind the order to exit are for the next logger.
            self._wait_for_exit(self.pid, deadline)
            self._forget()
        if self.pid is None:
            self._restart()
        os.close(EVENTS_WRITE)
        while self.pid is not None:
            self._wait_for_exit(self.pid, deadline)
            self._forget()
            # A logger that was killed with events in the pipe gets a successor.
            if time.monotonic() < deadline and _is_ready(EVENTS_READ, select.POLLIN, 0.0):
                self._restart()

    def _wait_for_exit(self, pid: int, deadline: float) -> None:
        """Wait for a logger to exit; kill it at the deadline."""
        if not fork.wait_for_exit(pid, deadline - time.monotonic()):
            fork.send_signal([pid], signal.SIGKILL)

    def _on_exit(self) -> None:
        counters = LogCounters(LOG_COUNTERS)
        self._has_crashed = self.pid is not None and self.pid != counters.exited_pid
        if self._has_crashed:
            # The events that it had read and not written cannot be counted.
            why = "logger exited unexpectedly; it is being replaced"
            if self.pid != counters.started_pid:
                why = f"logger does not start; {REPLACED_HINT}"
            self._log.enqueue_reliable("error", log_protocol.LOG_LOST, count=None, why=why)
        self._forget()
        self._schedule(self._started, self._restart)

    def _forget(self) -> None:
        if self._pidfd is not None:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
        self.pid = self._pidfd = None

    def _restart(self) -> None:
        self.start(self._config)

    def _schedule(self, since: float, action: Callable[[], None]) -> None:
        when = max(time.monotonic(), since + RESTART_SECONDS)
        self._loop.timers.set("logger", when, action)


def _is_ready(fd: int, event: int, deadline: float) -> bool:
    """Wait until a descriptor is readable or writable; False at the deadline (monotonic clock)."""
    poll = select.poll()
    poll.register(fd, event)
    remaining = max(0.0, deadline - time.monotonic())
    return any(seen & event for _, seen in poll.poll(remaining * 1000))
