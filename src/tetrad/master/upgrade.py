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
from tetrad.ipc.fds import PLAN
from tetrad.master import saved_state
from tetrad.master.helper_process import HelperProcess, failed
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
        self._errand = HelperProcess(master.loop, "trying the new version")
        self._answer: Answer | None = None
        self._asker: int | None = None
        self._is_due_again = False

    @property
    def is_under_way(self) -> bool:
        """Whether the new version is being tried."""
        return self._errand.is_under_way

    def order(self) -> None:
        """Upgrade, by a signal; one that comes while an upgrade is under way is obeyed after it."""
        if self._answer is None:
            self.ask(lambda _outcome: None, None)
        else:
            self._is_due_again = True

    def ask(self, answer: Answer, asker: int | None) -> None:
        """Upgrade. If that fails, `answer` is called with `errors`; else nothing returns.

        Who asked then hears from the new version, through the descriptor `asker`.
        """
        if self._master.is_stopping:
            answer(failed(STOPPING))
        elif self._answer is not None:
            answer(failed(UNDER_WAY))
        else:
            self._answer, self._asker = answer, asker
            self.go_on()

    def go_on(self) -> None:
        """Try the new version, if somebody waits for that and nothing else is under way."""
        if self._answer is not None and self._master.is_at_leisure:
            self._master.supervision.reloading()
            try:
                self._write(_NO_PLAN)
            except OSError as error:
                self._conclude(failed(f"no memory for an upgrade: {reason_of(error)}"))
                return
            self._errand.send(self._master.plan["prober"], (PLAN,), self._on_answer)

    def stop(self) -> None:
        """Upgrade no more, and say so to who has asked."""
        self._is_due_again = False
        if self.is_under_way:
            self._errand.call_off(STOPPING)
        elif self._answer is not None:
            self._conclude(failed(STOPPING))

    def _on_answer(self, answer: dict[str, Any]) -> None:
        if "errors" in answer:
            self._conclude(answer)
            return
        try:
            self._become(answer["command"], answer["plan"])
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            self._conclude(failed(f"the new version cannot begin: {what}{reason_of(error)}"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end who serves
            self._conclude(failed(f"the new version cannot begin: {error!r}"))

    def _become(self, command: list[str], plan: bytes) -> None:
        """Become the new version. Raises what went wrong, and all is as it was."""
        master = self._master
        master.door.sum_up()
        master.journal.flush()
        handed = [listener.socket.fileno() for listener in master.door.listeners]
        handed += [guest[0] for guest in master.door.leave()["guests"]]
        handed += [] if self._asker is None else [self._asker]
        with fork.signals_blocked:
            self._write(plan)
            master.signals.pass_on()
            if master.reloading.put_off(UPGRADED):
                signal.raise_signal(signal.SIGHUP)
            if self._is_due_again:
                signal.raise_signal(signal.SIGUSR2)
            try:
                for fd in handed:
                    os.set_inheritable(fd, True)
                os.execve(command[0], command, os.environ)
            finally:
                for fd in handed:
                    os.set_inheritable(fd, False)

    def _write(self, plan: bytes) -> None:
        """Put a plan, and behind it the state of the daemon, to where the next version looks."""
        state = saved_state.leave(self._master, __version__, self._asker)
        os.ftruncate(PLAN, 0)
        with open(PLAN, "wb", closefd=False) as file:
            file.seek(0)
            file.write(plan)
            marshal.dump(dict(state), file)
        os.lseek(PLAN, 0, os.SEEK_SET)

    def _conclude(self, failure: dict[str, Any]) -> None:
        master = self._master
        os.ftruncate(PLAN, 0)
        master.journal.event("error", log_protocol.SERVER_UPGRADE_FAILED, errors=failure["errors"])
        if not master.is_stopping:
            master.supervision.ready()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(failure)
        if self._is_due_again:
            self._is_due_again = False
            self.order()
        master.go_on()
