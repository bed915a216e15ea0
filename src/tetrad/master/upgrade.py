"""Upgrading in place: the newly installed version is tried, and then this process becomes it.

A program of the new version (`tetrad.helpers.upgrade_trial`) does what the new master will have to
do, with the state of this daemon and with stand-ins for all that it holds. Only if that succeeds
is there an exec: same pid, same listeners, same children. Nothing is given up before it, so that an
exec that fails leaves a daemon that has missed nothing.
"""

from __future__ import annotations

import marshal
import os

from tetrad import __version__
from tetrad.ipc import log_protocol
from tetrad.ipc.fds import RUNTIME_CONFIG
from tetrad.master import saved_state
from tetrad.master.helper_process import HelperProcess, failure
from tetrad.master.reload import STOPPING
from tetrad.system import fork
from tetrad.system.lean_signal import signal
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tetrad.master.process import Master

    Answer = Callable[[dict[str, object]], object]

UNDER_WAY = "an upgrade is under way already"
UPGRADED = "the daemon is being upgraded, which applies the file, too"

_NO_PLAN = marshal.dumps(None)


class Upgrader:
    """Upgrades the master that it belongs to, one request at a time."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._helper = HelperProcess(master.loop, "trying the new version")
        self._answer: Answer | None = None
        self._requester: int | None = None
        self._is_requested_again = False

    @property
    def is_running(self) -> bool:
        """Whether the new version is being tried."""
        return self._helper.is_running

    def request_by_signal(self) -> None:
        """Upgrade, by a signal; one that comes while an upgrade is under way is obeyed after it."""
        if self._answer is None:
            self.request(lambda _outcome: None, None)
        else:
            self._is_requested_again = True

    def request(self, answer: Answer, asker: int | None) -> None:
        """Upgrade. If that fails, `answer` is called with `errors`; else nothing returns.

        Who asked then hears from the new version, through the descriptor `asker`.
        """
        if self._master.is_stopping:
            answer(failure(STOPPING))
        elif self._answer is not None:
            answer(failure(UNDER_WAY))
        else:
            self._answer, self._requester = answer, asker
            self.run_next()

    def run_next(self) -> None:
        """Try the new version, if somebody waits for that and nothing else is under way."""
        if self._answer is not None and self._master.is_at_leisure:
            self._master.service_manager.reloading()
            try:
                self._write_state(_NO_PLAN)
            except OSError as error:
                self._finish(failure(f"no memory for an upgrade: {reason_of(error)}"))
                return
            self._helper.start(self._master.config["prober"], (RUNTIME_CONFIG,), self._on_answer)

    def stop(self) -> None:
        """Upgrade no more, and say so to who has asked."""
        self._is_requested_again = False
        if self.is_running:
            self._helper.cancel(STOPPING)
        elif self._answer is not None:
            self._finish(failure(STOPPING))

    def _on_answer(self, answer: dict[str, Any]) -> None:
        if "errors" in answer:
            self._finish(answer)
            return
        try:
            self._exec(answer["command"], answer["plan"])
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            self._finish(failure(f"the new version cannot begin: {what}{reason_of(error)}"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end who serves
            self._finish(failure(f"the new version cannot begin: {error!r}"))

    def _exec(self, command: list[str], config: bytes) -> None:
        """Become the new version. Raises what went wrong, and all is as it was."""
        master = self._master
        master.acceptor.log_suppressed()
        master.log.flush()
        handed = [listener.socket.fileno() for listener in master.acceptor.listeners]
        handed += [pending[0] for pending in master.acceptor.save_state()["pending_connections"]]
        handed += [] if self._requester is None else [self._requester]
        with fork.signals_blocked:
            self._write_state(config)
            master.signals.requeue()
            if master.reloader.cancel_waiting(UPGRADED):
                signal.raise_signal(signal.SIGHUP)
            if self._is_requested_again:
                signal.raise_signal(signal.SIGUSR2)
            try:
                for fd in handed:
                    os.set_inheritable(fd, True)
                os.execve(command[0], command, os.environ)
            finally:
                for fd in handed:
                    os.set_inheritable(fd, False)

    def _write_state(self, config: bytes) -> None:
        """Put a plan, and behind it the state of the daemon, to where the next version looks."""
        state = saved_state.save(self._master, __version__, self._requester)
        os.ftruncate(RUNTIME_CONFIG, 0)
        with open(RUNTIME_CONFIG, "wb", closefd=False) as file:
            file.seek(0)
            file.write(config)
            marshal.dump(dict(state), file)
        os.lseek(RUNTIME_CONFIG, 0, os.SEEK_SET)

    def _finish(self, failure: dict[str, Any]) -> None:
        master = self._master
        os.ftruncate(RUNTIME_CONFIG, 0)
        master.log.event("error", log_protocol.SERVER_UPGRADE_FAILED, errors=failure["errors"])
        if not master.is_stopping:
            master.service_manager.ready()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(failure)
        if self._is_requested_again:
            self._is_requested_again = False
            self.request_by_signal()
        master.run_next()
