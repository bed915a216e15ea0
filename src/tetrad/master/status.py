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


class Moment:
    """A moment by the clock, in seconds since 1970, and by a clock that nobody sets.

    The latter counts the time in which the machine is suspended, so the two stay together.
    """

    def __init__(self, clock: float, since_boot: float) -> None:
        self.clock, self.since_boot = clock, since_boot

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        return cls(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))

    @property
    def age(self) -> float:
        """How long ago it was in seconds."""
        return self.now().since_boot - self.since_boot

    @property
    def by_new_clock(self) -> float:
        """When it was by the clock as that is set now; steps of less than a second do not count."""
        now = self.now()
        return self.clock + round(now.clock - now.since_boot - self.clock + self.since_boot)


class Lifetime:
    """When the daemon started, and its upgrades since."""

    def __init__(self) -> None:
        self.started = Moment.now()
        self.upgrades = 0
        self.upgraded: Moment | None = None

    def save_state(self) -> LifetimeState:
        """Return the state for the next version, with monotonic time."""
        began = self.started.since_boot - _suspended()
        return {"started": self.started.clock, "began": began, "upgrades": self.upgrades}

    def restore_state(self, state: LifetimeState) -> None:
        """Continue the lifetime of the version before, one upgrade later."""
        self.started = Moment(state["started"], state["began"] + _suspended())
        self.upgrades = state["upgrades"] + 1
        self.upgraded = Moment.now()


def _suspended() -> float:
    """Return how long the machine was suspended since its boot, in whole seconds."""
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic())


def collect(view: StatusView, written: int, lost: int, logger: int | None) -> dict[str, object]:
    """Return the status as `tetrad.ipc.control_messages.Status` describes it.

    `written` and `lost` are the numbers of events since the start, `logger` is the logger's pid.
    """
    now = time.monotonic()
    lifetime, acceptor, handlers, config = view.lifetime, view.acceptor, view.handlers, view.config
    upgraded = lifetime.upgraded
    return {
        "state": "stopping" if view.is_stopping else "running",
        "pid": view.pid,
        "version": __version__,
        "config": config["file"],
        "started": round(lifetime.started.by_new_clock, 6),
        "uptime": round(lifetime.started.age, 3),
        "upgrades": lifetime.upgrades,
        "upgraded": None if upgraded is None else round(upgraded.by_new_clock, 6),
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
