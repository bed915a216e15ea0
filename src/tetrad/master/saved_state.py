"""What one version of the master leaves to the next, which takes its place in the same process.

Plain data, which goes through `marshal` in a file in memory. The two versions share more than this
page: handlers and a logger of the old one are at work while the new one begins, so their notices,
the lifeline, and the lines and orders in the pipe to the logger are the same to both. A version
that changes any of it has another FORMAT; it then refuses to take over, and the old one serves on.
"""

from __future__ import annotations

from tetrad.master.connections import Client, Listener
from tetrad.master.handler_table import HandlerProcess
from tetrad.system import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    from tetrad.ipc.runtime_config import ListenerConfig, RuntimeConfig, ServiceManagerConfig
    from tetrad.master.process import Master

    class LifetimeState(TypedDict):
        """See `tetrad.master.status.Life`; `began` is in seconds of the monotonic clock."""

        started: float
        began: float
        upgrades: int

    class LogWriterState(TypedDict):
        """Losses that were not reported, all losses ever, and a report that found no room."""

        lost: int
        lost_in_all: int
        due: bytes | None

    PendingState = tuple[int, int, dict[str, Any], float, bytes]
    """Who waits in the vestibule: its descriptor, its listener's, client, deadline, its words."""

    class AcceptorState(TypedDict):
        """What connections are numbered by, the counters, and the vestibule."""

        run: str
        serial: int
        accepted: int
        peak: int
        refused: dict[str, int]
        pending_connections: list[PendingState]

    class ListenerState(TypedDict):
        """An open listener: its name in the plan, and the descriptor where it stands."""

        name: str
        family: str
        fd: int

    HandlerState = tuple[int, int, float, dict[str, Any] | None]
    """A handler's number, pid and moment of its client's arrival; its client, if it has one."""

    class State(TypedDict):
        """The whole. `asker` is the descriptor of who is to hear what came of the upgrade."""

        format: int
        version: str
        settings: dict[str, str]
        fixed: list[str]
        service_manager: ServiceManagerConfig
        inherited: bool
        life: LifetimeState
        log: LogWriterState
        acceptor: AcceptorState
        listeners: list[ListenerState]
        forked: int
        lost: int
        handlers: list[HandlerState]
        logger: int | None
        asker: int | None


FORMAT = 3


class StateFormatError(Exception):
    """The state is of another format; the text says so."""


def save(master: Master, version: str, asker: int | None) -> State:
    """Return all that the next version needs to go on. `version` is the one that leaves it."""
    config = master.config
    return {
        "format": FORMAT,
        "version": version,
        "settings": config["settings"],
        "fixed": config["fixed"],
        "service_manager": config["service_manager"],
        "inherited": config["inherited"],
        "life": master.lifetime.save_state(),
        "log": master.log.save_state(),
        "acceptor": master.acceptor.save_state(),
        "listeners": [
            {
                "name": listener.config["name"],
                "family": listener.config["family"],
                "fd": listener.socket.fileno(),
            }
            for listener in master.acceptor.listeners
        ],
        "forked": master.handlers.forked,
        "lost": master.handlers.lost,
        "handlers": [
            (child.number, child.pid, child.since, None if client is None else client.save_state())
            for child, client in ((child, child.client) for child in master.handlers)
        ],
        "logger": master.logger.pid,
        "asker": asker,
    }


def check(state: State, version: str) -> None:
    """Raise StateFormatError if `version`, which is this one, cannot go on from a state."""
    if state.get("format") != FORMAT:
        raise StateFormatError(
            f"version {version} cannot take over from a daemon of version "
            f"{state.get('version', 'unknown')}: tetrad restart changes over to it"
        )


def keep_process_settings(config: RuntimeConfig, state: State) -> None:
    """Put into a new plan what holds for as long as the daemon runs.

    The service manager knows by now which process the daemon is.
    """
    config["service_manager"] = {**state["service_manager"], "is_known": True}
    config["inherited"] = state["inherited"]


def restore(master: Master, state: State) -> None:
    """Go on where the version before has stopped."""
    master.lifetime.restore_state(state["life"])
    master.log.restore_state(state["log"])
    master.acceptor.restore_state(state["acceptor"])
    master.handlers.forked, master.handlers.lost = state["forked"], state["lost"]
    for number, pid, since, client in state["handlers"]:
        child = HandlerProcess(number, pid, None)
        if client is not None:
            child.assign(Client.restore_state(client), since)
        master.handlers.restore_handler(child)


def paired(
    config: RuntimeConfig, state: State
) -> list[tuple[ListenerConfig, ListenerState]] | None:
    """Return each listener's plan and where it stands; None unless they are the same listeners."""
    left = list(config["listeners"])
    pairs = []
    for one in state["listeners"]:
        match = next((new for new in left if new["name"] == one["name"]), None)
        if match is None:
            return None
        left.remove(match)
        pairs.append((match, one))
    return None if left else pairs


def adopted(config: RuntimeConfig, state: State) -> list[Listener]:
    """Return the listeners, as they stand."""
    return [
        Listener(new, sockets.from_fd(old["fd"], old["family"]), inherited=config["inherited"])
        for new, old in paired(config, state) or ()
    ]
