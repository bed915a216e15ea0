"""Reloading: the file is read by a program of its own, and its plan applied whole or not at all."""

from __future__ import annotations

import errno

from tetrad import __version__
from tetrad.ipc import log_protocol
from tetrad.ipc.log_protocol import shortened
from tetrad.master import tls_contexts
from tetrad.master.connections import Listener
from tetrad.master.helper_process import HelperProcess, failure
from tetrad.system import sockets
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable
    from typing import Any

    from tetrad.ipc.runtime_config import ListenerConfig, RuntimeConfig
    from tetrad.master.process import Master

STOPPING = "the daemon is stopping"

_ANY = {"0.0.0.0", "::"}  # noqa: S104 - names


class Reloader:
    """Reads and applies the file again. Those who ask meanwhile get a reading of their own."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._helper = HelperProcess(master.loop, "reading the file")
        self._waiting: list[Callable[[dict[str, object]], None]] = []
        self._answered: list[Callable[[dict[str, object]], None]] = []

    @property
    def is_running(self) -> bool:
        """Whether the file is being read."""
        return self._helper.is_running

    def request(self, answer: Callable[[dict[str, object]], None]) -> None:
        """Reload, and call `answer` with the outcome: `changes`, or `errors`."""
        if self._master.is_stopping:
            answer(failure(STOPPING))
            return
        self._waiting.append(answer)
        self.run_next()

    def run_next(self) -> None:
        """Read the file, if somebody waits for that and nothing else is under way."""
        if self._waiting and self._master.is_at_leisure:
            self._answered, self._waiting = self._waiting, []
            self._master.service_manager.reloading()
            self._helper.start(self._master.config["reloader"], (), self._on_answer)

    def stop(self) -> None:
        """Read and apply nothing any more, and say so to those who have asked."""
        self._helper.cancel(STOPPING)
        self.cancel_waiting(STOPPING)

    def cancel_waiting(self, why: str) -> bool:
        """Tell those who wait for a reading of their own that it comes to nothing; if any did."""
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer(failure(why))
        return bool(waiting)

    def _on_answer(self, answer: dict[str, Any]) -> None:
        if "errors" not in answer:
            answer = self._apply(answer["plan"], answer["problems"])
        self._finish(answer)

    def _apply(self, config: RuntimeConfig, found: list[str]) -> dict[str, Any]:
        """Apply what was read, if no problems were `found`; return the outcome."""
        if config["version"] != __version__:
            both = f"version {config['version']} is installed, and {__version__} runs"
            return failure(f"{both}: tetrad upgrade changes over to it, and applies the file, too")
        old = self._master.config
        problems = fixed_problems(old["fixed"], old["settings"], config["settings"])
        problems += found
        acceptor = self._master.acceptor
        settle = _require_same if acceptor.inherited else _open_new
        opened, more = settle(acceptor.listeners, config["listeners"])
        problems += more
        try:
            contexts = tls_contexts.load_contexts(config["listeners"])
        except (OSError, ImportError) as error:
            problems.append(f"tls: {error}")
        if problems:
            for _, socket in opened:
                sockets.close(socket)
            return {"errors": problems, "is_file_bad": True}
        listeners_opened = [Listener(listener, socket) for listener, socket in opened]
        self._master.apply_config(config, listeners_opened, contexts)
        return {"changes": changes(old["settings"], config["settings"])}

    def _finish(self, outcome: dict[str, Any]) -> None:
        log = self._master.log
        if "errors" in outcome:
            log.event("error", log_protocol.SERVER_RELOAD_FAILED, errors=outcome["errors"])
        else:
            log.event("info", log_protocol.SERVER_RELOADED, changes=outcome["changes"])
        if not self._master.is_stopping:
            self._master.service_manager.ready()
        answered, self._answered = self._answered, []
        for answer in answered:
            answer(outcome)
        self._master.run_next()


def is_same_listener(one: ListenerConfig, other: ListenerConfig) -> bool:
    """Tell whether two listeners are one socket; what is served there may differ."""
    return one["name"] == other["name"]


def match_listeners(
    present: list[Listener], wanted: list[ListenerConfig]
) -> tuple[dict[Listener, ListenerConfig], list[ListenerConfig]]:
    """Return by which plan each listener goes on, and the plans that no listener has yet.

    There may be several of a name: of port 0, which is any.
    """
    missing = list(wanted)
    pairs = {}
    for listener in present:
        match = next(
            (config for config in missing if is_same_listener(config, listener.config)), None
        )
        if match is not None:
            missing.remove(match)
            pairs[listener] = match
    return pairs, missing


def _open_new(
    present: list[Listener], wanted: list[ListenerConfig]
) -> tuple[list[tuple[ListenerConfig, _socket.socket]], list[str]]:
    """Open the listeners that are not there yet; return them, and what went wrong."""
    opened, problems = [], []
    for config in match_listeners(present, wanted)[1]:
        try:
            opened.append(
                (
                    config,
                    sockets.open_listener(
                        config["family"], config["address"], config["port"], config["backlog"]
                    ),
                )
            )
        except PermissionError:
            problems.append(
                f"{config['name']}: no permission any more to listen there: restart as root"
            )
        except OSError as error:
            ours = next((one.name for one in present if _is_in_conflict(config, one)), None)
            hint = f": by this daemon, as {ours}; restart it instead"
            if error.errno != errno.EADDRINUSE or ours is None:
                hint = ""
            problems.append(f"{config['name']}: {reason_of(error)}{hint}")
    return opened, problems


def _is_in_conflict(wanted: ListenerConfig, listener: Listener) -> bool:
    """Tell whether a listener leaves no room for another one: the same port of some address."""
    addresses = {wanted["address"], listener.config["address"]}
    is_shared = len(addresses) == 1 or not addresses.isdisjoint(_ANY)
    return listener.port is not None and listener.port == wanted["port"] and is_shared


def _require_same(
    present: list[Listener], wanted: list[ListenerConfig]
) -> tuple[list[tuple[ListenerConfig, _socket.socket]], list[str]]:
    """Open nothing, as the listeners are the service manager's: there must be the same ones."""
    if {config["name"] for config in wanted} == {listener.config["name"] for listener in present}:
        return [], []
    return [], ["listen: systemd listens for us: change tetrad.socket, too, and restart both"]


def fixed_problems(fixed: Iterable[str], old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return what has changed of the settings that cannot change while the daemon runs."""
    changed = changes(old, new)
    return [
        f"{key} cannot change while the daemon runs ({changed[key]}): restart it"
        for key in changed
        if key in fixed
    ]


def changes(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Return what has changed, by key, in so many words that it can be read."""
    return {
        key: f"{shortened(old.get(key, 'none'))} -> {shortened(new.get(key, 'none'))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
