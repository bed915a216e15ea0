"""Reloading: the file is read by a program of its own, and its plan applied whole or not at all."""

from __future__ import annotations

import os

from tetrad import __version__, encryption, events, listeners
from tetrad.clients import Listener
from tetrad.errand import Errand

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterable
    from typing import Any

    from tetrad.master import Master
    from tetrad.plan import ListenerPlan, Plan

STOPPING = "the daemon is stopping"


class Reloading:
    """Reads and applies the file again. Those who ask meanwhile get a reading of their own."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._errand = Errand(master.loop, "reading the file")
        self._waiting: list[Callable[[dict[str, object]], None]] = []
        self._answered: list[Callable[[dict[str, object]], None]] = []

    @property
    def is_under_way(self) -> bool:
        """Whether the file is being read."""
        return self._errand.is_under_way

    def ask(self, answer: Callable[[dict[str, object]], None]) -> None:
        """Reload, and call `answer` with the outcome: `changes`, or `errors`."""
        if self._master.is_stopping:
            answer({"errors": [STOPPING]})
            return
        self._waiting.append(answer)
        self.go_on()

    def go_on(self) -> None:
        """Read the file, if somebody waits for that and nothing else is under way."""
        if self._waiting and self._master.is_at_leisure:
            self._answered, self._waiting = self._waiting, []
            self._master.supervision.reloading()
            self._errand.send(self._master.plan["reloader"], (), self._on_answer)

    def stop(self) -> None:
        """Read and apply nothing any more, and say so to those who have asked."""
        self._errand.call_off(STOPPING)
        self.put_off(STOPPING)

    def put_off(self, why: str) -> bool:
        """Tell those who wait for a reading of their own that it comes to nothing; if any did."""
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer({"errors": [why]})
        return bool(waiting)

    def _on_answer(self, answer: dict[str, Any]) -> None:
        if "errors" in answer:
            self._conclude(answer["errors"])
        else:
            self._conclude(self._take_up(answer["plan"]))

    def _take_up(self, plan: Plan) -> list[str] | dict[str, str]:
        """Apply what was read; return what changed, or why nothing did."""
        if plan["version"] != __version__:
            both = f"version {plan['version']} is installed, and {__version__} runs"
            return [f"{both}: tetrad upgrade changes over to it, and applies the file, too"]
        old = self._master.plan
        problems = fixed_problems(old["fixed"], old["settings"], plan["settings"])
        problems += log_problems(plan["log"]["file"])
        door = self._master.door
        settle = _keep if door.inherited else _open_new
        opened, more = settle(door.listeners, plan["listeners"])
        problems += more
        try:
            encryptions = encryption.make(plan["listeners"])
        except (OSError, ImportError) as error:
            problems.append(f"tls: {error}")
        if problems:
            for listener, socket in opened:
                listeners.close(socket, listener)
            return problems
        listeners_opened = [Listener(listener, socket) for listener, socket in opened]
        self._master.take_up(plan, listeners_opened, encryptions)
        return changes(old["settings"], plan["settings"])

    def _conclude(self, result: list[str] | dict[str, str]) -> None:
        journal = self._master.journal
        if isinstance(result, dict):
            journal.event("info", events.SERVER_RELOADED, changes=result)
            outcome: dict[str, object] = {"changes": result}
        else:
            journal.event("error", events.SERVER_RELOAD_FAILED, errors=result)
            outcome = {"errors": result}
        if not self._master.is_stopping:
            self._master.supervision.ready()
        answered, self._answered = self._answered, []
        for answer in answered:
            answer(outcome)
        self._master.go_on()


def same_place(one: ListenerPlan, other: ListenerPlan) -> bool:
    """Tell whether two listeners are one socket; what is served there may differ."""
    return one["name"] == other["name"]


def paired(
    present: list[Listener], wanted: list[ListenerPlan]
) -> tuple[dict[Listener, ListenerPlan], list[ListenerPlan]]:
    """Return by which plan each listener goes on, and the plans that no listener has yet.

    There may be several of a name: of port 0, which is any.
    """
    missing = list(wanted)
    pairs = {}
    for listener in present:
        match = next((plan for plan in missing if same_place(plan, listener.plan)), None)
        if match is not None:
            missing.remove(match)
            pairs[listener] = match
    return pairs, missing


def _open_new(
    present: list[Listener], wanted: list[ListenerPlan]
) -> tuple[list[tuple[ListenerPlan, _socket.socket]], list[str]]:
    """Open the listeners that are not there yet; return them, and what went wrong."""
    opened, problems = [], []
    for plan in paired(present, wanted)[1]:
        try:
            opened.append((plan, listeners.open_listener(plan)))
        except PermissionError:
            problems.append(
                f"{plan['name']}: no permission any more to listen there: restart as root"
            )
        except OSError as error:
            problems.append(f"{plan['name']}: {error.strerror}")
    return opened, problems


def _keep(
    present: list[Listener], wanted: list[ListenerPlan]
) -> tuple[list[tuple[ListenerPlan, _socket.socket]], list[str]]:
    """Open nothing, as the listeners are the service manager's: there must be the same ones."""
    if {plan["name"] for plan in wanted} == {listener.plan["name"] for listener in present}:
        return [], []
    return [], ["listen: systemd listens for us: change tetrad.socket, too, and restart both"]


def log_problems(file: str | None) -> list[str]:
    """Try whether the log file can be opened: a bad one must not cost the good one."""
    if file is None:
        return []
    # To read and write: a named pipe that nobody reads must not hold up the master.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        os.close(os.open(file, flags, 0o666))
    except OSError as error:
        return [f"log.file: {file}: {error.strerror}"]
    return []


def fixed_problems(fixed: Iterable[str], old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return what has changed of the settings that cannot change while the daemon runs."""
    changed = changes(old, new)
    return [
        f"{key} cannot change while the daemon runs ({changed[key]}): restart it"
        for key in changed
        if key in fixed
    ]


def changes(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Return what has changed, by key."""
    return {
        key: f"{old.get(key, 'none')} -> {new.get(key, 'none')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
