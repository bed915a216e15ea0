"""The status that the master reports on the control socket."""

from __future__ import annotations

import time

from tetrad import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from tetrad.ipc.runtime_config import RuntimeConfig
    from tetrad.ipc.saved_state import LifetimeState
    from tetrad.master.acceptor import Acceptor
    from tetrad.master.admission import Admission
    from tetrad.master.handler_pool import HandlerPool

    class StatusView(Protocol):
        """The parts of the master that the status describes; none of them is changed."""

        config: RuntimeConfig
        pid: int
        is_stopping: bool
        lifetime: Lifetime
        acceptor: Acceptor
        admission: Admission
        handlers: HandlerPool


class Lifetime:
    """When the daemon started, by the clock and by the monotonic clock, and its upgrades since."""

    def __init__(self) -> None:
        self.started = time.time()
        self.upgrades = 0
        self.upgraded: float | None = None
        self._began = time.monotonic()

    @property
    def uptime(self) -> float:
        """The time since the start in seconds."""
        return time.monotonic() - self._began

    def save_state(self) -> LifetimeState:
        """Return the state for the next version."""
        return {"started": self.started, "began": self._began, "upgrades": self.upgrades}

    def restore_state(self, state: LifetimeState) -> None:
        """Continue the lifetime of the version before, one upgrade later."""
        self.started, self._began = state["started"], state["began"]
        self.upgrades = state["upgrades"] + 1
        self.upgraded = time.time()


def collect(view: StatusView, written: int, lost: int, logger: int | None) -> dict[str, object]:
    """Return the status as `tetrad.ipc.control_messages.Status` describes it.

    `written` and `lost` are the numbers of events since the start, `logger` is the logger's pid.
    """
    now = time.monotonic()
    lifetime, acceptor, handlers, config = view.lifetime, view.acceptor, view.handlers, view.config
    return {
        "state": "stopping" if view.is_stopping else "running",
        "pid": view.pid,
        "version": __version__,
        "config": config["file"],
        "started": round(lifetime.started, 6),
        "uptime": round(lifetime.uptime, 3),
        "upgrades": lifetime.upgrades,
        "upgraded": None if lifetime.upgraded is None else round(lifetime.upgraded, 6),
        "listeners": [
            {
                "name": one.name,
                **one.fields(),
                "tls": one.config["tls"] is not None,
                "proxy": one.is_behind_proxy,
            }
            for one in acceptor.listeners
        ],
        "clients": {
            "now": view.admission.clients,
            "peak": acceptor.peak,
            "limit": config["limits"]["clients"],
        },
        "handlers": {"now": len(handlers), "idle": handlers.idle, "lost": handlers.lost},
        "accepted": acceptor.accepted,
        "refused": acceptor.refusals.counts,
        "rejected": handlers.rejected,
        "log": {
            **config["log"],
            "logger": logger,
            "written": written,
            "lost": lost,
        },
        "sessions": [
            {**client.fields(), "pid": one.pid, "age": round(now - one.since, 3)}
            for one in handlers
            if (client := one.client)
        ],
    }
