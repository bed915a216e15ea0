"""What the master says of itself to an operator who asks for its status."""

from __future__ import annotations

import time

from tetrad import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.master.process import Master
    from tetrad.master.saved_state import LifetimeState


class Lifetime:
    """When the daemon started, by the clock and by the monotonic one, and its upgrades since."""

    def __init__(self) -> None:
        self.started = time.time()
        self.upgrades = 0
        self.upgraded: float | None = None
        self._began = time.monotonic()

    @property
    def uptime(self) -> float:
        """For how many seconds it has run."""
        return time.monotonic() - self._began

    def save_state(self) -> LifetimeState:
        """Return what the next version goes on with."""
        return {"started": self.started, "began": self._began, "upgrades": self.upgrades}

    def restore_state(self, left: LifetimeState) -> None:
        """Go on with the life of the version before."""
        self.started, self._began = left["started"], left["began"]
        self.upgrades = left["upgrades"] + 1
        self.upgraded = time.time()


def status(master: Master, written: int, lost: int) -> dict[str, object]:
    """Return what an operator wants to know; the logger has `written` and `lost` events."""
    now = time.monotonic()
    life, acceptor, handlers, config = (
        master.lifetime,
        master.acceptor,
        master.handlers,
        master.config,
    )
    return {
        "state": "stopping" if master.is_stopping else "running",
        "pid": master.pid,
        "version": __version__,
        "config": config["file"],
        "started": round(life.started, 6),
        "uptime": round(life.uptime, 3),
        "upgrades": life.upgrades,
        "upgraded": None if life.upgraded is None else round(life.upgraded, 6),
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
            "now": master.admission.clients,
            "peak": acceptor.peak,
            "limit": config["limits"]["clients"],
        },
        "handlers": {"now": len(handlers), "idle": handlers.idle, "lost": handlers.lost},
        "accepted": acceptor.accepted,
        "refused": acceptor.refusals.counts,
        "log": {
            **config["log"],
            "logger": master.logger.pid,
            "written": written,
            "lost": lost + master.log.lost_total,
        },
        "sessions": [
            {**client.fields(), "pid": child.pid, "age": round(now - child.since, 3)}
            for child in handlers
            if (client := child.client)
        ],
    }
