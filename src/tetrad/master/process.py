"""The master: accepts, admits, forks, keeps watch; signals and operators are heard here.

The one process that forks, so the one that imports almost nothing: `tests/test_lean.py` holds the
list. It never reads YAML, never writes the log, never serves a client, and never waits for any of
those who do.
"""

from __future__ import annotations

import gc
import marshal
import os
import time

from tetrad import __version__
from tetrad.handler import commands
from tetrad.handler.process import Handler
from tetrad.ipc import log_protocol
from tetrad.ipc.fds import (
    CONTROL,
    JOURNAL,
    LIFELINE,
    SHUTDOWN_WRITE,
    PIDFILE,
    PLAN,
)
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.master import saved_state
from tetrad.master.acceptor import Acceptor
from tetrad.master.admission import Admission
from tetrad.master.control_server import ControlServer
from tetrad.master.handler_pool import HandlerPool
from tetrad.master.logger_supervisor import LoggerSupervisor
from tetrad.master.reload import Reloader, paired
from tetrad.master.service_manager import ServiceManager
from tetrad.master.signals import Signals
from tetrad.master.startup import Startup
from tetrad.master.status import Lifetime
from tetrad.master.upgrade import Upgrader
from tetrad.system import fork, sockets
from tetrad.system.event_loop import EventLoop
from tetrad.system.lean_signal import signal
from tetrad.system.proctitle import ProcessTitle
from tetrad.tls import context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.handler.tls_session import TlsContext
    from tetrad.ipc.runtime_config import RuntimeConfig
    from tetrad.master.connections import Listener
    from tetrad.master.saved_state import State

CATCH_UP_SECONDS = 1.0
"""How often the master tries to say what found no room in the journal."""

KILLED_AFTER_SECONDS = 1.0
"""How long handlers get beyond their own last moment before they are killed."""


class Master:
    """All that the daemon is, wired together."""

    def __init__(self, plan: RuntimeConfig, state: State | None = None) -> None:
        if state is not None:
            saved_state.carry_over(plan, state)
        self.plan = plan
        self.pid = os.getpid()
        self.life = Lifetime()
        self.title = ProcessTitle()
        self.loop = EventLoop()
        self.lifeline = ShutdownPipe(LIFELINE, plan["stop_timeout"])
        self.signals = Signals(self.loop, self._obey, self.lifeline.on_signal)
        self.journal = log_protocol.LogWriter(JOURNAL, plan["log"]["level"])
        self.admission = Admission(plan["limits"], plan["access"])
        self.crew = HandlerPool(self.loop, self.journal, self.admission)
        self.door = Acceptor(
            self.loop, self.journal, self.admission, self.crew, inherited=plan["inherited"]
        )
        self.logkeeper = LoggerSupervisor(self.loop, self.journal, plan["logger"])
        self.reloading = Reloader(self)
        self.upgrading = Upgrader(self)
        self.supervision = ServiceManager(self)
        self._encryptions = context.make(plan["listeners"])
        self._control_socket = sockets.adopt(CONTROL, "unix")
        self.control = ControlServer(self._control_socket, self)
        self.beginning = Startup(self, state)
        self._handler: Handler | None = None
        self.is_stopping = False
        self._gone = False

    @property
    def is_at_leisure(self) -> bool:
        """Whether neither a reload nor an upgrade is under way, and neither is too late."""
        is_busy = self.reloading.is_under_way or self.upgrading.is_under_way
        return not is_busy and not self.is_stopping

    def go_on(self) -> None:
        """Begin with what had to wait for the end of a reload or an upgrade."""
        self.upgrading.go_on()
        self.reloading.go_on()

    def run(self) -> None:
        """Serve until told to stop."""
        self.signals.hear()
        self.loop.watch(CONTROL, self.control.accept)
        self._show_title()
        if not self.beginning.begin():
            self._stop()
        context.remind(self.loop, self.journal, self.plan["listeners"])
        self.supervision.begin()
        while not self.is_stopping or len(self.crew):
            self._turn()
        self._leave()

    def _turn(self) -> None:
        # Asked first, and called only then: what is touched in each turn, each fork copies.
        journal, crew, supervision = self.journal, self.crew, self.supervision
        if journal.gathered or journal.due or journal.lost:
            self._speak()
        if supervision.is_curious and supervision.told != self.admission.clients:
            supervision.tell_later()
        chore = crew.spare > 0 and crew.wants_spare and not self.is_stopping
        if not self.loop.turn(has_chore=chore) and chore:
            crew.hire_spare()

    def _speak(self) -> None:
        """Send what there is to say; what finds no room, later."""
        self.journal.flush()
        if self.journal.is_behind and "behind" not in self.loop.timers:
            when = time.monotonic() + CATCH_UP_SECONDS
            self.loop.timers.set("behind", when, self.journal.flush)

    def take_up(
        self, plan: RuntimeConfig, opened: list[Listener], encryptions: list[TlsContext | None]
    ) -> None:
        """Work by another plan; `opened` are the listeners that are new in it."""
        old, self.plan = self.plan, plan
        plan["supervision"], plan["inherited"] = old["supervision"], old["inherited"]
        self._encryptions = encryptions
        pairs, _ = paired(self.door.listeners, plan["listeners"])
        for listener in self.door.listeners:
            if listener in pairs:
                listener.configure(pairs[listener])
                listener.socket.listen(listener.plan["backlog"])
            else:
                self.door.close(listener)
        for listener in opened:
            self.door.open(listener)
            self.journal.event("info", log_protocol.SERVER_LISTENING, **listener.fields())
        self.admission.configure(plan["limits"], plan["access"])
        if plan["log"] != old["log"]:
            self.logkeeper.configure(plan["log"])
        context.remind(self.loop, self.journal, plan["listeners"])
        self.set_up_crew()
        self._show_title()
        self.crew.dismiss_denied()

    def fork(self, work: Callable[[], object], fd: int) -> None:
        """Fork a child that tells what the master knows, through `fd`. Raises OSError."""
        _, error = fork.fork_each([(fd, work, ())], self.loop.highest)
        if error is not None:
            raise error

    def fail(self, error: Exception) -> None:
        """Say what defect ends the daemon."""
        place = log_protocol.place_of(error)
        self.journal.event("error", log_protocol.SERVER_FAILED, error=repr(error), place=place)
        self.journal.flush()
        self.beginning.tell_starter(
            {"error": f"a defect in tetrad: {error!r}", "permission": False}
        )

    def set_up_crew(self) -> Handler:
        """Serve new clients by the plan; return what serves them."""
        plan = self.plan
        self.lifeline.grace = plan["stop_timeout"]
        known = commands.make(plan["commands"])
        handler = Handler(plan, known, self._encryptions, self.lifeline, self.title)
        self.crew.configure(handler, plan["spare"], plan["clients_each"])
        before, self._handler = self._handler, handler
        if before is not None:
            before.let_go()
        return handler

    def _show_title(self) -> None:
        text = f"master {self.plan['file'] or ''}".rstrip()
        self.title.set(text.encode("ascii", "backslashreplace"))

    def _obey(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.reloading.ask(lambda _outcome: None)
        elif number == signal.SIGUSR1:
            self.logkeeper.reopen()
        elif number == signal.SIGUSR2:
            self.upgrading.order()
        elif number == signal.SIGQUIT or (number == signal.SIGINT and self.is_stopping):
            self._stop_now()
        elif number in {signal.SIGTERM, signal.SIGINT}:
            self._stop()

    def announce(self, event: str, **more: object) -> None:
        """Log a turn in the life of the daemon."""
        who = {"version": __version__, "config": self.plan["file"]}
        self.journal.event("info", event, **who, **more)

    def _stop(self) -> None:
        """Accept no more, and let sessions finish."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.announce(log_protocol.SERVER_STOPPING, clients=self.admission.clients)
        self.door.stop()
        self.supervision.stopping()
        self.upgrading.stop()
        self.reloading.stop()
        self.journal.flush()
        os.write(SHUTDOWN_WRITE, b".")
        self.crew.retire()
        when = time.monotonic() + self.plan["stop_timeout"] + KILLED_AFTER_SECONDS
        self.loop.timers.set("kill", when, self.crew.kill)

    def _stop_now(self) -> None:
        """End all sessions without waiting for anybody."""
        self._stop()
        if not self._gone:
            self._gone = True
            os.close(SHUTDOWN_WRITE)
            self.loop.timers.set("kill", time.monotonic() + KILLED_AFTER_SECONDS, self.crew.kill)

    def _leave(self) -> None:
        """Go, with nothing left behind and the log complete."""
        self.logkeeper.catch_up()
        self.door.sum_up()
        self.announce(log_protocol.SERVER_STOPPED, accepted=self.door.accepted)
        # The pidfile last: who finds none takes everything else for free, too. And emptied, for the
        # folder may not be ours to take files away from.
        _unlink(self.plan["control"])
        os.ftruncate(PIDFILE, 0)
        _unlink(self.plan["pidfile"])
        self.logkeeper.see_off()


def main() -> None:
    """Run the master: the front has put everything into place (see `tetrad.ipc.fds`).

    Or the version before has: then there is a state to go on from (`tetrad.master.saved_state`).
    """
    with open(PLAN, "rb", closefd=False) as file:
        plan, state = marshal.load(file), marshal.load(file)  # noqa: S302 - the front's, or our own
    os.ftruncate(PLAN, 0)
    gc.disable()
    master = Master(plan, state)
    try:
        master.run()
    except Exception as error:  # noqa: BLE001 - a defect ends the daemon, and the log says which
        master.fail(error)
        os._exit(fork.FAILED)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # not our folder: an unlocked pidfile is as good as none
