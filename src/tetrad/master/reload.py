"""Reload: a helper process reads the configuration file, and the master applies it or nothing."""

from __future__ import annotations

import errno
import os

from tetrad.ipc import listener_pairs, log_protocol
from tetrad.master import tls_contexts
from tetrad.master.connections import Listener
from tetrad.master.helper_process import HelperProcess, failure
from tetrad.master.setting_changes import changes
from tetrad.system import sockets
from tetrad.system.addresses import exclude_each_other
from tetrad.system.text import ADDRESS_HINTS, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    from tetrad.ipc.runtime_config import ListenerConfig, RuntimeConfig
    from tetrad.master.change_queue import ChangeQueue
    from tetrad.system.event_loop import EventLoop
    from tetrad.tls.context import TlsContext

    Answer = Callable[[dict[str, object]], object]

    class ReloadTarget(Protocol):
        """What a reload reads from the master, and the one thing that it has it do."""

        config: RuntimeConfig

        @property
        def listeners(self) -> list[Listener]:
            """The open listeners."""

        def apply_config(
            self, config: RuntimeConfig, opened: list[Listener], contexts: list[TlsContext | None]
        ) -> None:
            """Run with another configuration; `opened` are its new listeners.

            Whatever it raises, nothing has changed.
            """

        def after_closing(self, action: Callable[[], object]) -> None:
            """Call `action` as soon as the listeners are closed that are no longer wanted."""


STOPPING = "the daemon is stopping"


class Reloader:
    """Reads and applies the file. Requests that come during a reading share the next reading."""

    def __init__(
        self,
        loop: EventLoop,
        log: log_protocol.LogWriter,
        changes: ChangeQueue,
        target: ReloadTarget,
    ) -> None:
        self._log = log
        self._changes = changes
        self._target = target
        self._helper = HelperProcess(loop, "the configuration reader")
        self._waiting: list[Answer] = []
        self._answering: list[Answer] = []

    def request(self, answer: Answer) -> None:
        """Reload, and call `answer` with the outcome: `changes`, or `errors`."""
        if self._changes.is_closed:
            answer(failure(STOPPING))
            return
        self._waiting.append(answer)
        if len(self._waiting) == 1:
            self._changes.submit(self._read)

    def stop(self) -> None:
        """Cancel the reading that runs and those that wait."""
        self._helper.cancel(STOPPING)
        self.cancel_waiting(STOPPING)

    def cancel_waiting(self, why: str) -> bool:
        """Answer the requests whose reading has not started with an error; True if there were any.

        For the end of this process: the queue is not told.
        """
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer(failure(why))
        return bool(waiting)

    def _read(self) -> None:
        self._answering, self._waiting = self._waiting, []
        self._helper.start(self._target.config["config_reader"], (), self._on_answer)

    def _on_answer(self, answer: dict[str, Any]) -> None:
        if "errors" not in answer:
            try:
                answer = self._apply(answer["config"], answer["problems"])
            except Exception as error:  # noqa: BLE001 - no answer may end the daemon
                answer = failure(f"the configuration reader's answer is invalid: {error!r}")
        # Not earlier: the next change may open such a listener again, or replace this program.
        self._target.after_closing(lambda: self._finish(answer))

    def _apply(self, config: RuntimeConfig, found: list[str]) -> dict[str, Any]:
        """Apply a configuration unless there are problems; `found` are those of the helper.

        Whatever it raises, nothing has changed.
        """
        target, old = self._target, self._target.config
        if other := other_code(old, config):
            return failure(f"{other}: tetrad upgrade switches to it and applies the file")
        require_same_keys(old, config)
        of_file = restart_problems(old["restart_only"], old["settings"], config["settings"])
        others = list(found)
        changed = changes(old["settings"], config["settings"])
        opened = NewListeners(target.listeners, config["listeners"])
        try:
            try:
                contexts = tls_contexts.load_contexts(config["listeners"])
            except (OSError, ImportError) as error:
                others.append(f"listen[].tls: cannot create the TLS context: {error}")
            if old["inherited"]:
                of_file += opened.require_none()
            else:
                opened.open(of_file, others)
            if of_file or others:
                return {"errors": of_file + others, "is_file_bad": bool(of_file)}
            target.apply_config(config, opened.listeners, contexts)
            opened.keep()
        finally:
            opened.discard()
        return {"changes": changed}

    def _finish(self, outcome: dict[str, Any]) -> None:
        if "errors" in outcome:
            self._log.event("error", log_protocol.SERVER_RELOAD_FAILED, errors=outcome["errors"])
        else:
            self._log.event("info", log_protocol.SERVER_RELOADED, changes=outcome["changes"])
        answering, self._answering = self._answering, []
        for answer in answering:
            answer(outcome)
        self._changes.finish()


class NewListeners:
    """The listeners that a new configuration has and the daemon has not: kept, or without a trace.

    Until they are kept, nothing is lost of what was there before.
    """

    def __init__(self, present: list[Listener], wanted: list[ListenerConfig]) -> None:
        pairs, self._leaving, self._missing = pair_listeners(present, wanted)
        self._staying = [listener for listener, _ in pairs]
        self._aside: dict[str, str] = {}
        self.listeners: list[Listener] = []

    def require_none(self) -> list[str]:
        """Return the problem if listeners differ that the service manager holds."""
        if not self._leaving and not self._missing:
            return []
        return ["listen: systemd holds the listeners: change tetrad.socket too, and restart both"]

    def open(self, of_file: list[str], others: list[str]) -> None:
        """Open them. Those that exclude a new one and are no longer wanted stay open meanwhile.

        Problems are appended to `of_file` if the file has to change, otherwise to `others`. Unix
        sockets come last, and only without problems: they leave a trace in the file system.
        """
        for config in sorted(self._missing, key=lambda one: one["family"] == "unix"):
            if config["family"] == "unix" and (of_file or others):
                continue
            try:
                self._open(config)
            except OSError as error:
                ours = self._in_the_way(config) if error.errno == errno.EADDRINUSE else None
                if ours is not None:
                    hint = f"this daemon listens on {ours}; use tetrad restart"
                    of_file.append(f"{config['name']}: {reason_of(error)}: {hint}")
                else:
                    others.append(_problem_of(config, error))
        self.listeners.sort(key=lambda one: one.config["index"])

    def keep(self) -> None:
        """Let them stay open, and remove what was at their paths."""
        self.listeners, stale = [], self._aside.values()
        self._aside = {}
        for aside in stale:
            try:
                os.unlink(aside)
            except OSError:
                pass  # already removed

    def discard(self) -> None:
        """Close them unless they are kept, and restore what was at their paths."""
        for listener in self.listeners:
            sockets.close(listener.socket)
        for path, aside in self._aside.items():
            try:
                os.rename(aside, path)
            except OSError:
                pass  # another process has removed it, or put something else there

    def _open(self, config: ListenerConfig) -> None:
        """Open a listener. Raises OSError."""
        family, address = config["family"], config["address"]
        if family == "unix" and (aside := sockets.set_stale_aside(address)) is not None:
            self._aside[address] = aside
        rivals = [one.socket for one in self._leaving if excludes(one, config)]
        socket = sockets.open_listener(family, address, config["port"], config["backlog"], rivals)
        self.listeners.append(Listener(config, socket))

    def _in_the_way(self, config: ListenerConfig) -> str | None:
        """Return the listener of this daemon whose port a new one cannot share, if there is one.

        It stays open, or was opened by another user: by root, in an earlier release.
        """
        user = os.geteuid()
        theirs = [one for one in self._leaving if os.fstat(one.socket.fileno()).st_uid != user]
        return next((one.name for one in self._staying + theirs if excludes(one, config)), None)


def excludes(listener: Listener, wanted: ListenerConfig) -> bool:
    """Tell whether an open listener excludes a TCP listener of a configuration."""
    is_same_port = listener.port is not None and listener.port == wanted["port"]
    return is_same_port and exclude_each_other(listener.config["address"], wanted["address"])


def _problem_of(config: ListenerConfig, error: OSError) -> str:
    """Return the text for a listener that cannot be opened, with the way out."""
    hint = ADDRESS_HINTS.get(error.errno or 0)
    if config["family"] == "unix":
        is_denied = error.errno in {errno.EACCES, errno.EPERM}
        hint = "the daemon's user needs write access to its directory" if is_denied else None
    elif error.errno == errno.EACCES:
        hint = f"{hint}: use tetrad restart"
    return f"{config['name']}: {reason_of(error)}" + (f"; {hint}" if hint else "")


def other_code(running: RuntimeConfig, installed: RuntimeConfig) -> str | None:
    """Return how the code that made a configuration differs from the running code, or None."""
    if installed.get("code") == running["code"]:
        return None
    version = installed.get("version")
    if version == running["version"]:
        return f"other code of version {version} is installed than that which is running"
    return f"version {version} is installed, version {running['version']} is running"


def require_same_keys(old: RuntimeConfig, new: RuntimeConfig) -> None:
    """Raise KeyError unless a configuration has the same keys as another one of the same code.

    Some of them are read long after a reload.
    """
    pairs: list[tuple[Mapping[str, object], Mapping[str, object]]] = [
        (old, new),
        (old["log"], new["log"]),
        (old["limits"], new["limits"]),
        (old["session"], new["session"]),
        *((old["listeners"][0], listener) for listener in new["listeners"]),
    ]
    for one, other in pairs:
        if one.keys() != other.keys():
            raise KeyError(*sorted(one.keys() ^ other.keys()))


def pair_listeners(
    present: list[Listener], wanted: list[ListenerConfig]
) -> tuple[list[tuple[Listener, ListenerConfig]], list[Listener], list[ListenerConfig]]:
    """Pair open listeners with those of a configuration; then those to close, and to open."""
    return listener_pairs.pair(present, wanted, _is_same)


def _is_same(listener: Listener, wanted: ListenerConfig) -> bool:
    return listener.config["name"] == wanted["name"]


def restart_problems(
    restart_only: Iterable[str], old: dict[str, str], new: dict[str, str]
) -> list[str]:
    """Return a problem for each changed setting that only a restart can change."""
    changed = changes(old, new)
    return [
        f"{key} cannot change while the daemon runs ({changed[key]}): use tetrad restart"
        for key in changed
        if key in restart_only
    ]
