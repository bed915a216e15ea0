"""Messages to the service manager: readiness, status line, and watchdog, as in sd_notify(3)."""

from __future__ import annotations

import time

from tetrad.system.sd_notify import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.ipc.runtime_config import ServiceManagerConfig
    from tetrad.system.timers import Timers

    Describe = Callable[[], tuple[int, str]]
    """Returns the number of clients and the status line."""

STATUS_SECONDS = 1.0
"""The delay of a status message after a change; more changes during it share the message."""


class ServiceManager:
    """Sends messages to the service manager, if there is one.

    It `wants_status` when the number of clients differs from `reported_clients`: a manager
    listens, and no status message is scheduled.
    """

    def __init__(self, timers: Timers, config: ServiceManagerConfig, describe: Describe) -> None:
        self._timers = timers
        self._describe = describe
        self._notifier = Notifier(config["notify"])
        self._knows_main_pid = config["knows_main_pid"]
        self._watchdog_seconds = config["watchdog"]
        self._problem = ""
        self._sent = ""
        self.reported_clients: int | None = None
        self.wants_status = self._notifier.is_enabled

    def start(self) -> None:
        """Report readiness, and send watchdog messages from now on.

        The manager of a daemon that forked itself learns only now which process is the main one,
        and rejects messages of any other process until then: so they start later.
        """
        if self._knows_main_pid:
            self.ready()
            self._send_watchdog()
        else:
            self.schedule_status()
            if self._watchdog_seconds is not None:
                self._schedule("watchdog", self._watchdog_seconds / 2, self._send_watchdog)

    def ready(self) -> None:
        """Report that the daemon runs with its configuration, after a start or a reload."""
        self._notifier.ready(self._status())

    def reloading(self) -> None:
        """Report that the configuration is about to change."""
        self._notifier.reloading(time.monotonic())

    def stopping(self) -> None:
        """Report that the daemon stops."""
        self._notifier.stopping(self._status())

    def report(self, problem: str) -> None:
        """Show a warning or an error in the status line, from the next second on."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._problem = f"; last problem at {moment}: {problem}"
        if self._notifier.is_enabled:
            self.schedule_status()

    def forget_problem(self) -> None:
        """Show no problem in the status line any more: another configuration is in effect."""
        self._problem = ""

    def schedule_status(self) -> None:
        """Send the status line in a second."""
        self.wants_status = False
        self._schedule("status", STATUS_SECONDS, self.send_status)

    def send_status(self) -> None:
        """Send the status line now."""
        self.wants_status = self._notifier.is_enabled
        self._notifier.status(self._status())

    def _status(self) -> str:
        """Return the status line, which is about to be sent."""
        self.reported_clients, text = self._describe()
        self._sent = text + self._problem
        return self._sent

    def _send_watchdog(self) -> None:
        """Send a watchdog message, and schedule the next one in half of the watchdog's interval."""
        if self._watchdog_seconds is not None:
            self._notifier.watchdog()
            if self._describe()[1] + self._problem != self._sent:
                self.send_status()  # for example after lines were lost
            self._schedule("watchdog", self._watchdog_seconds / 2, self._send_watchdog)

    def _schedule(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._timers.set(name, time.monotonic() + seconds, action)
