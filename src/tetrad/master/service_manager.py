"""What the service manager hears of the master: that it is ready, how it is, and that it lives."""

from __future__ import annotations

import time

from tetrad.system.sd_notify import Notifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.master.process import Master

STATUS_SECONDS = 1.0
"""How long after a change the manager hears of it; there may be more changes by then."""


class ServiceManager:
    """The master's side of sd_notify(3) and of the watchdog.

    It `is_curious` whether there are still as many clients as it has `told`: somebody wants to hear
    that, and no word of it is on its way.
    """

    def __init__(self, master: Master) -> None:
        config = master.config["service_manager"]
        self._master = master
        self._notifier = Notifier(config["notify"])
        self._is_known = config["is_known"]
        self._watchdog_seconds = config["watchdog"]
        self.reported_clients: int | None = None
        self.wants_status = self._notifier.is_heard

    def start(self) -> None:
        """Say that clients are accepted, and give signs of life from now on.

        The manager of a daemon that forked itself learns only now which process it is, and refuses
        words from any other: so they begin later.
        """
        if self._is_known:
            self.ready()
            self._send_watchdog()
        else:
            self.schedule_status()
            if self._watchdog_seconds is not None:
                self._schedule("watchdog", self._watchdog_seconds / 2, self._send_watchdog)

    def ready(self) -> None:
        """Say that the daemon works by its plan, from the start or again."""
        self.reported_clients = self._master.admission.clients
        self._notifier.ready(self._status())

    def reloading(self) -> None:
        """Say that the plan is about to change."""
        self._notifier.reloading(time.monotonic())

    def stopping(self) -> None:
        """Say that this is the end."""
        self._notifier.stopping(self._status())

    def schedule_status(self) -> None:
        """Have the manager hear of the number of clients, in a while."""
        self.wants_status = False
        self._schedule("status", STATUS_SECONDS, self._send_status)

    def _send_status(self) -> None:
        self.wants_status = self._notifier.is_heard
        self.reported_clients = self._master.admission.clients
        self._notifier.status(self._status())

    def _send_watchdog(self) -> None:
        """Give a sign of life, twice as often as the manager wants one."""
        if self._watchdog_seconds is not None:
            self._notifier.watchdog()
            self._schedule("watchdog", self._watchdog_seconds / 2, self._send_watchdog)

    def _schedule(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._master.loop.timers.set(name, time.monotonic() + seconds, action)

    def _status(self) -> str:
        places = [
            f"{one.name} ({one.config['service']})" for one in self._master.acceptor.listeners
        ]
        where = ", ".join(places) or "accepting no more"
        clients = self._master.admission.clients
        return f"{where}; {clients} client{'' if clients == 1 else 's'}"
