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
    EVENTS_WRITE,
    FIRST_MASTER_FD,
    PIDFILE,
    RUNTIME_CONFIG,
    SHUTDOWN_READ,
    SHUTDOWN_WRITE,
)
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.master import saved_state, tls_contexts
from tetrad.master.acceptor import Acceptor
from tetrad.master.admission import Admission
from tetrad.master.control_server import ControlServer
from tetrad.master.handler_pool import HandlerPool
from tetrad.master.logger_supervisor import LoggerSupervisor
from tetrad.master.reload import Reloader, match_listeners
from tetrad.master.service_manager import ServiceManager
from tetrad.master.signals import Signals
from tetrad.master.startup import Startup
from tetrad.master.status import Lifetime
from tetrad.master.upgrade import Upgrader
from tetrad.system import fork, sockets
from tetrad.system.errors import call_path
from tetrad.system.event_loop import EventLoop
from tetrad.system.lean_signal import signal
from tetrad.system.proctitle import ProcessTitle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.ipc.runtime_config import RuntimeConfig
    from tetrad.master.connections import Listener
    from tetrad.master.saved_state import State
    from tetrad.tls.context import TlsContext

FLUSH_RETRY_SECONDS = 1.0
"""How often the master tries to say what found no room in the journal."""

KILL_MARGIN_SECONDS = 1.0
"""How long handlers get beyond their own last moment before they are killed."""


class Master:
    """All that the daemon is, wired together."""

    def __init__(self, config: RuntimeConfig, state: State | None = None) -> None:
        if state is not None:
            saved_state.keep_process_settings(config, state)
        self.config = config
        self.pid = os.getpid()
        self.lifetime = Lifetime()
        self.title = ProcessTitle()
        self.loop = EventLoop()
        self.shutdown_pipe = ShutdownPipe(SHUTDOWN_READ, config["stop_timeout"])
        self.signals = Signals(self.loop, self._on_signal, self.shutdown_pipe.on_signal)
        self.log = log_protocol.LogWriter(EVENTS_WRITE, config["log"]["level"])
        self.admission = Admission(config["limits"], config["access"])
        self.handlers = HandlerPool(self.loop, self.log, self.admission)
        self.acceptor = Acceptor(
            self.loop, self.log, self.admission, self.handlers, inherited=config["inherited"]
        )
        self.logger = LoggerSupervisor(self.loop, self.log, config["logger"])
        self.reloader = Reloader(self)
        self.upgrader = Upgrader(self)
        self.service_manager = ServiceManager(self)
        self._tls_contexts = tls_contexts.load_contexts(config["listeners"])
        self._control_socket = sockets.from_fd(CONTROL, "unix")
        self.control = ControlServer(self._control_socket, self)
        self.startup = Startup(self, state)
        self._handler: Handler | None = None
        self.is_stopping = False
        self._is_killing = False

    @property
    def is_at_leisure(self) -> bool:
        """Whether neither a reload nor an upgrade is under way, and neither is too late."""
        is_busy = self.reloader.is_running or self.upgrader.is_running
        return not is_busy and not self.is_stopping

    def run_next(self) -> None:
        """Begin with what had to wait for the end of a reload or an upgrade."""
        self.upgrader.run_next()
        self.reloader.run_next()

    def run(self) -> None:
        """Serve until told to stop."""
        self.signals.install()
        self.loop.watch(CONTROL, self.control.accept)
        self._show_title()
        if not self.startup.run():
            self._stop()
        tls_contexts.warn_of_expiry(self.loop.timers, self.log, self.config["listeners"])
        self.service_manager.start()
        while not self.is_stopping or len(self.handlers):
            self._turn()
        self._exit()

    def _turn(self) -> None:
        # Asked first, and called only then: what is touched in each turn, each fork copies.
        log, handlers, service_manager = self.log, self.handlers, self.service_manager
        if log.pending or log.reliable or log.lost:
            self._flush_log()
        if (
            service_manager.wants_status
            and service_manager.reported_clients != self.admission.clients
        ):
            service_manager.schedule_status()
        chore = handlers.spare > 0 and handlers.needs_spare and not self.is_stopping
        if not self.loop.run_once(has_chore=chore) and chore:
            handlers.fork_spare()

    def _flush_log(self) -> None:
        """Send what there is to say; what finds no room, later."""
        self.log.flush()
        if self.log.has_backlog and "behind" not in self.loop.timers:
            when = time.monotonic() + FLUSH_RETRY_SECONDS
            self.loop.timers.set("behind", when, self.log.flush)

    def apply_config(
        self, config: RuntimeConfig, opened: list[Listener], contexts: list[TlsContext | None]
    ) -> None:
        """Work by another plan; `opened` are the listeners that are new in it."""
        old, self.config = self.config, config
        config["service_manager"], config["inherited"] = old["service_manager"], old["inherited"]
        self._tls_contexts = contexts
        pairs, _ = match_listeners(self.acceptor.listeners, config["listeners"])
        for listener in self.acceptor.listeners:
            if listener in pairs:
                listener.configure(pairs[listener])
                listener.socket.listen(listener.config["backlog"])
            else:
                self.acceptor.close_listener(listener)
        for listener in opened:
            self.acceptor.add_listener(listener)
            self.log.event("info", log_protocol.SERVER_LISTENING, **listener.fields())
        self.admission.configure(config["limits"], config["access"])
        if config["log"] != old["log"]:
            self.logger.configure(config["log"])
        tls_contexts.warn_of_expiry(self.loop.timers, self.log, config["listeners"])
        self.configure_handlers()
        self._show_title()
        self.handlers.terminate_denied()

    def fork(self, work: Callable[[], object], fd: int) -> None:
        """Fork a child that tells what the master knows, through `fd`. Raises OSError."""
        _, error = fork.fork_each(
            [(fd, work, ())],
            FIRST_MASTER_FD,
            self.loop.highest_fd,
            log_protocol.log_handler_failure,
        )
        if error is not None:
            raise error

    def log_failure(self, error: Exception) -> None:
        """Say what defect ends the daemon."""
        place = call_path(error)
        self.log.event("error", log_protocol.SERVER_FAILED, error=repr(error), place=place)
        self.log.flush()
        self.startup.notify_starter(
            {"error": f"a defect in tetrad: {error!r}", "permission": False}
        )

    def configure_handlers(self) -> Handler:
        """Serve new clients by the plan; return what serves them."""
        config = self.config
        self.shutdown_pipe.grace = config["stop_timeout"]
        known = commands.make(config["commands"])
        handler = Handler(config, known, self._tls_contexts, self.shutdown_pipe, self.title)
        self.handlers.configure(handler, config["spare"], config["clients_each"])
        before, self._handler = self._handler, handler
        if before is not None:
            before.let_go()
        return handler

    def _show_title(self) -> None:
        text = f"master {self.config['file'] or ''}".rstrip()
        self.title.show(text.encode("ascii", "backslashreplace"))

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.reloader.request(lambda _outcome: None)
        elif number == signal.SIGUSR1:
            self.logger.reopen()
        elif number == signal.SIGUSR2:
            self.upgrader.request_by_signal()
        elif number == signal.SIGQUIT or (number == signal.SIGINT and self.is_stopping):
            self._stop_now()
        elif number in {signal.SIGTERM, signal.SIGINT}:
            self._stop()

    def log_lifecycle(self, event: str, **more: object) -> None:
        """Log a turn in the life of the daemon."""
        who = {"version": __version__, "config": self.config["file"]}
        self.log.event("info", event, **who, **more)

    def _stop(self) -> None:
        """Accept no more, and let sessions finish."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.log_lifecycle(log_protocol.SERVER_STOPPING, clients=self.admission.clients)
        self.acceptor.stop()
        self.service_manager.stopping()
        self.upgrader.stop()
        self.reloader.stop()
        self.log.flush()
        os.write(SHUTDOWN_WRITE, b".")
        self.handlers.drain_idle()
        when = time.monotonic() + self.config["stop_timeout"] + KILL_MARGIN_SECONDS
        self.loop.timers.set("kill", when, self.handlers.kill)

    def _stop_now(self) -> None:
        """End all sessions without waiting for anybody."""
        self._stop()
        if not self._is_killing:
            self._is_killing = True
            os.close(SHUTDOWN_WRITE)
            self.loop.timers.set("kill", time.monotonic() + KILL_MARGIN_SECONDS, self.handlers.kill)

    def _exit(self) -> None:
        """Go, with nothing left behind and the log complete."""
        self.logger.flush_pending()
        self.acceptor.log_suppressed()
        self.log_lifecycle(log_protocol.SERVER_STOPPED, accepted=self.acceptor.accepted)
        # The pidfile last: who finds none takes everything else for free, too. And emptied, for the
        # folder may not be ours to take files away from.
        _unlink(self.config["control"])
        os.ftruncate(PIDFILE, 0)
        _unlink(self.config["pidfile"])
        self.logger.shut_down()


def main() -> None:
    """Run the master: the front has put everything into place (see `tetrad.ipc.fds`).

    Or the version before has: then there is a state to go on from (`tetrad.master.saved_state`).
    """
    with open(RUNTIME_CONFIG, "rb", closefd=False) as file:
        config, state = marshal.load(file), marshal.load(file)  # noqa: S302 - the front's, or our own
    os.ftruncate(RUNTIME_CONFIG, 0)
    gc.disable()
    master = Master(config, state)
    try:
        master.run()
    except Exception as error:  # noqa: BLE001 - a defect ends the daemon, and the log says which
        master.log_failure(error)
        os._exit(fork.FAILED)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # not our folder: an unlocked pidfile is as good as none
