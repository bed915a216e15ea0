"""The state that one version of the master leaves to the next, which runs in the same process.

Plain data, which `marshal` writes to a file in memory. The two versions share more than this page:
handlers and the logger of the old version keep running, so exit notices, the shutdown pipe, and the
lines and orders in the event pipe must mean the same to both. A version that changes any of these
increments FORMAT; a version that reads another FORMAT refuses to take over, and the old version
keeps running.
"""

from __future__ import annotations

from tetrad.ipc import listener_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NotRequired, TypedDict

    from tetrad.ipc.runtime_config import ListenerConfig, RuntimeConfig, ServiceManagerConfig

    class LifetimeState(TypedDict):
        """The state of `tetrad.master.status.Lifetime`; `began` is monotonic time in seconds."""

        started: float
        began: float
        upgrades: int

    class LogWriterState(TypedDict):
        """Lost events not reported yet, all lost events, and a report that waits for room."""

        lost: int
        lost_total: int
        report: bytes | None

    PendingState = tuple[int, int, dict[str, Any], float, bytes]
    """A connection whose PROXY header is incomplete: its descriptor, its listener's descriptor, the
    client's state, the deadline in monotonic seconds, the bytes of the header received so far."""

    class ListenerState(TypedDict):
        """A listener and its descriptor."""

        name: str
        family: str
        fd: int

    class AcceptorState(TypedDict):
        """Listeners, the parts of connection ids, counters, and incomplete PROXY handshakes."""

        run: str
        serial: int
        accepted: int
        peak: int
        refused: dict[str, int]
        listeners: list[ListenerState]
        pending_connections: list[PendingState]

    HandlerState = tuple[int, int, float, dict[str, Any] | None]
    """A handler: its number, its pid, since when it has its client, and the client's state."""

    class HandlerPoolState(TypedDict):
        """The number of the last handler, how many were lost, and the handlers that run.

        `rejected` counts rejected clients by reason, `certificates` describes those of clients by
        the number of the handler; 0.1.0 sends neither.
        """

        forked: int
        lost: int
        rejected: NotRequired[dict[str, int]]
        certificates: NotRequired[dict[int, bytes]]
        handlers: list[HandlerState]

    class State(TypedDict):
        """The whole; `requester` is the descriptor that gets the outcome of the upgrade."""

        format: int
        version: str
        settings: dict[str, str]
        restart_only: list[str]
        service_manager: ServiceManagerConfig
        inherited: bool
        lifetime: LifetimeState
        log: LogWriterState
        acceptor: AcceptorState
        handlers: HandlerPoolState
        logger: int | None
        requester: int | None


FORMAT = 3


class StateFormatError(Exception):
    """The state has another format; the message names both versions and the way out."""


def check_format(state: State, version: str) -> None:
    """Raise StateFormatError if `version`, the running code, cannot read a state."""
    if state.get("format") != FORMAT:
        raise StateFormatError(
            f"version {version} cannot take over from version {state.get('version', 'unknown')}: "
            "use tetrad restart"
        )


def keep_process_settings(config: RuntimeConfig, state: State) -> None:
    """Copy into a new configuration what stays the same as long as the process runs.

    By the time of an upgrade the service manager knows the main pid.
    """
    config["service_manager"] = {**state["service_manager"], "knows_main_pid": True}
    config["inherited"] = state["inherited"]


def match_listeners(
    config: RuntimeConfig, state: State
) -> list[tuple[ListenerConfig, ListenerState]] | None:
    """Return each listener of a configuration with its state; None unless the sets are equal."""
    pairs, missing, left = listener_pairs.pair(
        config["listeners"],
        state["acceptor"]["listeners"],
        lambda wanted, present: wanted["name"] == present["name"],
    )
    return None if missing or left else pairs
