"""Upgrade in place: the new version is tried by a helper process, then this process becomes it.

The helper (`tetrad.helpers.upgrade_trial`) runs the new version's code and does what the new master
will have to do, with this daemon's state and stand-ins for its descriptors. Only if that succeeds
does the master call exec: same pid, same listeners, same children. The master gives nothing up
before the exec, so an exec that fails leaves a daemon that has lost nothing.
"""

from __future__ import annotations

import marshal
import os

from tetrad.ipc import log_protocol
from tetrad.ipc.fds import RUNTIME_CONFIG
from tetrad.master.helper_process import HelperProcess, failure
from tetrad.master.reload import STOPPING
from tetrad.system import exec_commands, fork, memory_file
from tetrad.system.lean_signal import signal
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from tetrad.ipc.runtime_config import RuntimeConfig
    from tetrad.ipc.saved_state import State
    from tetrad.master.change_queue import ChangeQueue
    from tetrad.master.standard_streams import StandardStreams
    from tetrad.system.event_loop import EventLoop

    Answer = Callable[[dict[str, object]], object]

    class UpgradeTarget(Protocol):
        """What an upgrade needs of the master."""

        config: RuntimeConfig
        streams: StandardStreams

        def save_state(self, requester: int | None) -> State:
            """Return the state for the next version."""

        def fds_to_inherit(self) -> list[int]:
            """Return the descriptors that stay open over the exec and are close-on-exec now."""

        def log_pending(self) -> None:
            """Log what is due; called before the state is saved for the exec."""

        def requeue_requests(self) -> None:
            """Send this process the requests again that it has noted; signals are blocked."""


UNDER_WAY = "an upgrade is in progress"
UPGRADED = "the daemon is being upgraded, which applies the file too"

_NO_CONFIG = marshal.dumps(None)


class Upgrader:
    """Upgrades the master, one request at a time."""

    def __init__(
        self,
        loop: EventLoop,
        log: log_protocol.LogWriter,
        changes: ChangeQueue,
        target: UpgradeTarget,
    ) -> None:
        self._log = log
        self._changes = changes
        self._target = target
        self._helper = HelperProcess(loop, "the upgrade trial")
        self._answer: Answer | None = None
        self._requester: int | None = None
        self._trial: list[str] | None = None
        self._is_requested_again = False

    def request_by_signal(self) -> None:
        """Upgrade; a signal that comes during an upgrade requests another one after it."""
        if self._answer is None:
            self.request(lambda _outcome: None, None)
        else:
            self._is_requested_again = True

    def request(
        self, answer: Answer, requester: int | None, trial: list[str] | None = None
    ) -> None:
        """Upgrade. If that fails, `answer` is called with `errors`; else this process is replaced.

        The new version then writes the outcome to the descriptor `requester`. `trial` is the
        command line of the upgrade trial, which need not be in the folder of the running version.
        """
        if self._changes.is_closed:
            answer(failure(STOPPING))
        elif self._answer is not None:
            answer(failure(UNDER_WAY))
        else:
            self._answer, self._requester, self._trial = answer, requester, trial
            self._changes.submit(self._try_version)

    def stop(self) -> None:
        """Cancel the upgrade that runs or waits."""
        self._is_requested_again = False
        if self._helper.is_running:
            self._helper.cancel(STOPPING)
        elif self._answer is not None:
            self._finish(failure(STOPPING))

    def _try_version(self) -> None:
        try:
            self._write_state(_NO_CONFIG)
        except OSError as error:
            self._finish(failure(f"no memory for an upgrade: {reason_of(error)}"))
            return
        command = self._target.config["upgrade_trial"]
        if self._trial is not None:
            command = self._trial + exec_commands.arguments(command)
        self._helper.start(command, (RUNTIME_CONFIG,), self._on_answer)

    def _on_answer(self, answer: dict[str, Any]) -> None:
        if "errors" in answer:
            self._finish(answer)
            return
        try:
            # Version 0.1.0 writes its next state to the file that it has read.
            self._exec(answer["command"], answer["config"], is_sealed="takes_sealed_file" in answer)
        except OSError as error:
            file = f"{error.filename}: " if error.filename else ""
            self._finish(failure(f"the new version cannot start: {file}{reason_of(error)}"))
        except Exception as error:  # noqa: BLE001 - no error may end a daemon that serves clients
            self._finish(failure(f"the new version cannot start: {error!r}"))

    def _exec(self, command: list[str], config: bytes, *, is_sealed: bool) -> None:
        """Become the new version. If an exception is raised, nothing has changed."""
        target = self._target
        target.log_pending()
        inherited = target.fds_to_inherit()
        inherited += [] if self._requester is None else [self._requester]
        with fork.signals_blocked:
            self._write_state(config, is_sealed=is_sealed)
            target.requeue_requests()
            if self._is_requested_again:
                signal.raise_signal(signal.SIGUSR2)
            try:
                for fd in inherited:
                    os.set_inheritable(fd, True)
                target.streams.show()
                os.execve(command[0], command, os.environ)
            finally:
                target.streams.hide()
                for fd in inherited:
                    os.set_inheritable(fd, False)

    def _write_state(self, config: bytes, *, is_sealed: bool = True) -> None:
        """Give the new version a file with a configuration and the daemon's state."""
        state = self._target.save_state(self._requester)
        data = config + marshal.dumps(dict(state))
        memory_file.replace(RUNTIME_CONFIG, "runtime_config", data, is_sealed=is_sealed)

    def _finish(self, outcome: dict[str, Any]) -> None:
        """Report an upgrade that failed."""
        os.ftruncate(RUNTIME_CONFIG, 0)
        self._log.event("error", log_protocol.SERVER_UPGRADE_FAILED, errors=outcome["errors"])
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(outcome)
        if self._is_requested_again:
            self._is_requested_again = False
            self.request_by_signal()
        self._changes.finish()
