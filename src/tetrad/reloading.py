"""Reloading: the file is read by a program of its own, and its plan applied whole or not at all."""

from __future__ import annotations

import marshal
import os
import time

from tetrad import encryption, events, listeners, spawn
from tetrad.clients import Listener
from tetrad.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from tetrad.master import Master
    from tetrad.plan import ListenerPlan, Plan

PATIENCE_SECONDS = 30.0
"""How long reading a file may take."""

STOPPING = "the daemon is stopping"

_READ_BYTES = 65536


class Reloading:
    """Reads and applies the file again. Those who ask meanwhile get a reading of their own."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._waiting: list[Callable[[dict[str, object]], None]] = []
        self._answered: list[Callable[[dict[str, object]], None]] = []
        self._pipe: int | None = None
        self._reader = 0
        self._data = b""

    def ask(self, answer: Callable[[dict[str, object]], None]) -> None:
        """Reload, and call `answer` with the outcome: `changes`, or `errors`."""
        if self._master.is_stopping:
            answer({"errors": [STOPPING]})
            return
        self._waiting.append(answer)
        if self._pipe is None:
            self._begin()

    def stop(self) -> None:
        """Read and apply nothing any more, and say so to those who have asked."""
        if self._pipe is not None:
            self._give_up(STOPPING)

    def _begin(self) -> None:
        self._master.supervision.reloading()
        self._answered, self._waiting = self._waiting, []
        self._data = b""
        try:
            self._pipe = self._start_reader()
        except OSError as error:
            self._conclude([f"no process to read the file: {error.strerror}"])
            return
        loop = self._master.loop
        loop.watch(self._pipe, self._hear)
        late = f"reading the file took longer than {PATIENCE_SECONDS:.0f} s"
        when = time.monotonic() + PATIENCE_SECONDS
        loop.timers.set("reload", when, lambda: self._give_up(late))

    def _start_reader(self) -> int:
        """Start the program that reads the file, and return the pipe through which it answers."""
        ours, theirs = os.pipe()
        try:
            highest = max(self._master.loop.highest, ours, theirs)
            command = self._master.plan["reloader"]
            self._reader = spawn.run_program(command, (theirs,), highest)
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return ours

    def _hear(self, fd: int) -> None:
        data = os.read(fd, _READ_BYTES)
        self._data += data
        if not data:
            self._hang_up()
            self._conclude([STOPPING] if self._master.is_stopping else self._apply())

    def _give_up(self, why: str) -> None:
        """End the program that reads, and what it was to do."""
        spawn.send_signal(self._reader, signal.SIGKILL)
        self._hang_up()
        self._conclude([why])

    def _hang_up(self) -> None:
        if self._pipe is not None:
            self._master.loop.timers.cancel("reload")
            self._master.loop.unwatch(self._pipe)
            os.close(self._pipe)
            self._pipe = None

    def _apply(self) -> list[str] | dict[str, str]:
        """Apply what was read; return what changed, or why nothing did."""
        try:
            answer = marshal.loads(self._data)  # noqa: S302 - from a program of our own
        except (EOFError, ValueError, TypeError):
            return ["the program that reads the file ended early"]
        if "plan" not in answer:
            return list(answer["errors"])
        return self._take_up(answer["plan"])

    def _take_up(self, plan: Plan) -> list[str] | dict[str, str]:
        old = self._master.plan
        changes = _changes(old["settings"], plan["settings"])
        problems = [
            f"{key} cannot change while the daemon runs ({change}): restart it"
            for key, change in changes.items()
            if key in old["fixed"]
        ]
        problems += _log_problem(plan)
        door = self._master.door
        settle = _keep if door.inherited else _open_new
        opened, more = settle(door.listeners, plan["listeners"])
        problems += more
        try:
            encryptions = encryption.make(plan["listeners"])
        except OSError as error:
            problems.append(f"tls: {error}")
        if problems:
            for listener, socket in opened:
                listeners.close(socket, listener)
            return problems
        listeners_opened = [Listener(listener, socket) for listener, socket in opened]
        self._master.take_up(plan, listeners_opened, encryptions)
        return changes

    def _conclude(self, result: list[str] | dict[str, str]) -> None:
        journal = self._master.journal
        if isinstance(result, dict):
            journal.event("info", events.SERVER_RELOADED, changes=result)
            outcome: dict[str, object] = {"changes": result}
        else:
            journal.event("error", events.SERVER_RELOAD_FAILED, errors=result)
            outcome = {"errors": result}
        answered, self._answered = self._answered, []
        if self._master.is_stopping:
            answered, self._waiting = answered + self._waiting, []
        else:
            self._master.supervision.ready()
        for answer in answered:
            answer(outcome)
        if self._waiting:
            self._begin()


def same_place(one: ListenerPlan, other: ListenerPlan) -> bool:
    """Tell whether two listeners are one socket; what is served there may differ."""
    return one["name"] == other["name"]


def _open_new(
    present: list[Listener], wanted: list[ListenerPlan]
) -> tuple[list[tuple[ListenerPlan, _socket.socket]], list[str]]:
    """Open the listeners that are not there yet; return them, and what went wrong."""
    opened, problems = [], []
    for plan in wanted:
        if any(same_place(plan, listener.plan) for listener in present):
            continue
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


def _log_problem(plan: Plan) -> list[str]:
    """Try whether the log file can be opened: a bad one must not cost the good one."""
    file = plan["log"]["file"]
    if file is None:
        return []
    # To read and write: a named pipe that nobody reads must not hold up the master.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        os.close(os.open(file, flags, 0o666))
    except OSError as error:
        return [f"log.file: {file}: {error.strerror}"]
    return []


def _changes(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    return {
        key: f"{old.get(key, 'none')} -> {new.get(key, 'none')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
