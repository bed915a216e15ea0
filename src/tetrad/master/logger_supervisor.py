"""The master's care for the logger: started, given orders, replaced when it dies, seen off."""

from __future__ import annotations

import os
import select
import time

from tetrad.ipc import log_protocol
from tetrad.ipc.fds import EVENTS_READ, EVENTS_WRITE, LOG_COUNTERS
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

FINAL_FLUSH_SECONDS = 5.0
"""How long the last lines may take to be written when the daemon stops."""


class LoggerSupervisor:
    """Keeps one logger process at work at the end of the pipe."""

    def __init__(self, loop: EventLoop, log: log_protocol.LogWriter, command: list[str]) -> None:
        self._loop = loop
        self._log = log
        self._command = command
        self._pidfd: int | None = None
        self._started = -RESTART_SECONDS
        self._exiting_pid: int | None = None
        self.pid: int | None = None

    def start(self, config: LogConfig) -> None:
        """Start a logger; what the pipe holds by then is the first that it reads."""
        self._config = config
        self._started = time.monotonic()
        orders = encode(config)
        try:
            self.pid = fork.run_program(
                [*self._command, orders],
                (EVENTS_READ, LOG_COUNTERS),
                self._loop.highest_fd,
                is_deaf=True,
            )
        except OSError:
            self._schedule(self._started, self._restart)
        else:
            self._watch(self.pid)

    def take_over(self, config: LogConfig, pid: int | None) -> None:
        """Have the logger of the version before finish, and start one where it has stopped."""
        if pid is None:
            self.start(config)
            return
        self.configure(
            config
        )  # for what it has read by the time that it hears that it is to finish
        self.pid = self._exiting_pid = pid
        if fork.has_ended(pid):
            self._on_exit()
        else:
            self._log.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_EXIT, pid=pid)
            self._watch(pid)

    def _watch(self, pid: int) -> None:
        """Have its end told; if that cannot be now, then later."""
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._on_exit()
        except OSError:
            self._schedule(time.monotonic(), lambda: self._watch(pid))
        else:
            self._loop.watch(self._pidfd, lambda _pidfd: self._on_exit())

    def configure(self, config: LogConfig) -> None:
        """Have lines written like this from here on."""
        self._config = config
        self._log.set_level(config["level"])
        self._log.enqueue_reliable(
            log_protocol.LOGGER_ORDER, log_protocol.LOGGER_CONFIGURE, **config
        )

    def reopen(self) -> None:
        """Have the file opened anew."""
        self._log.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_REOPEN)

    def flush_pending(self) -> None:
        """Say what there is to say and had no room, waiting for it: nobody is served any more."""
        if self.pid is None:
            self._restart()
        deadline = time.monotonic() + FINAL_FLUSH_SECONDS
        while _is_ready(EVENTS_WRITE, select.POLLOUT, deadline):
            self._log.flush()
            if not self._log.has_backlog:
                break

    def shut_down(self) -> None:
        """Close the pipe, after which the logger writes what is in it and ends; wait for that."""
        self.flush_pending()
        deadline = time.monotonic() + FINAL_FLUSH_SECONDS
        if self.pid is not None and self.pid == self._exiting_pid:
            # What comes behind the order is for the next one.
            self._wait_for_exit(self.pid, deadline)
            self._forget()
        if self.pid is None:
            self._restart()
        os.close(EVENTS_WRITE)
        while self.pid is not None:
            self._wait_for_exit(self.pid, deadline)
            self._forget()
            # One that was killed with lines in the pipe has another one after it.
            if time.monotonic() < deadline and _is_ready(EVENTS_READ, select.POLLIN, 0.0):
                self._restart()

    def _wait_for_exit(self, pid: int, deadline: float) -> None:
        """Wait for a logger to finish; one that does not is killed."""
        if self._pidfd is None:
            self._watch(pid)
        if self._pidfd is not None and not _is_ready(self._pidfd, select.POLLIN, deadline):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_exit(self) -> None:
        if self.pid is not None and self.pid != LogCounters(LOG_COUNTERS).exited_pid:
            # What it had read and not written, nobody can count.
            self._log.enqueue_reliable(
                "error", log_protocol.LOG_LOST, count=None, why="the logger ended; it is replaced"
            )
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
    """Wait until a descriptor can be read or written; False at a moment of the monotonic clock."""
    poll = select.poll()
    poll.register(fd, event)
    remaining = max(0.0, deadline - time.monotonic())
    return any(seen & event for _, seen in poll.poll(remaining * 1000))
