"""The master: accepts connections, forks handlers, and obeys signals and the control socket.

The one process that forks for each client, so it imports almost nothing; the list is in
tests/project/test_master_imports.py. It never reads YAML, never writes the log, never serves a
client, and never waits for a handler, a helper or an operator.
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
from tetrad.ipc.access_list import listener_report
from tetrad.ipc.fds import (
    CONTROL,
    EVENTS_WRITE,
    FIRST_MASTER_FD,
    LOG_COUNTERS,
    NOTICES_WRITE,
    PIDFILE,
    RUNTIME_CONFIG,
    SHUTDOWN_READ,
    SHUTDOWN_WRITE,
)
from tetrad.ipc.log_counters import LogCounters
from tetrad.ipc.saved_state import FORMAT, keep_process_settings
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.master import status, tls_contexts
from tetrad.master.acceptor import Acceptor
from tetrad.master.admission import Admission
from tetrad.master.change_queue import ChangeQueue
from tetrad.master.control_server import ControlServer, Route
from tetrad.master.daemon_log import DaemonLog
from tetrad.master.handler_pool import HandlerPool
from tetrad.master.logger_supervisor import LoggerSupervisor
from tetrad.master.reload import Reloader, excludes, pair_listeners
from tetrad.master.service_manager import ServiceManager
from tetrad.master.session_rules import SessionRules
from tetrad.master.setting_changes import changes
from tetrad.master.signals import Signals
from tetrad.master.standard_streams import StandardStreams
from tetrad.master.startup import Startup
from tetrad.master.status import Lifetime
from tetrad.master.upgrade import UPGRADED, Upgrader
from tetrad.system import addresses, fork, sockets
from tetrad.system.event_loop import EventLoop
from tetrad.system.lean_signal import signal
from tetrad.system.proctitle import ProcessTitle, of_master
from tetrad.system.text import call_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.ipc.runtime_config import ListenerConfig, RuntimeConfig
    from tetrad.ipc.saved_state import State
    from tetrad.master.connections import Listener
    from tetrad.master.control_server import ControlRequest
    from tetrad.tls.context import TlsContext

FLUSH_RETRY_SECONDS = 1.0
"""The interval in which the master retries events that had no room in the event pipe."""

KILL_MARGIN_SECONDS = 1.0
"""The time between the last moment of handlers at a stop, and SIGKILL for those that are left."""


class Master:
    """The parts of the daemon, and how they act together."""

    def __init__(self, config: RuntimeConfig, state: State | None = None) -> None:
        if state is not None:
            keep_process_settings(config, state)
        self.config = config
        self.pid = os.getpid()
        self.is_stopping = False
        self._is_killing = False
        self.lifetime = Lifetime()
        self.title = ProcessTitle()
        self.loop = EventLoop()
        self.streams = StandardStreams(self.loop)
        self.shutdown_pipe = ShutdownPipe(SHUTDOWN_READ, config["stop_timeout"])
        self.signals = Signals(self.loop, self._on_signal, self.shutdown_pipe.on_signal)
        self.service_manager = ServiceManager(
            self.loop.timers, config["service_manager"], self._describe
        )
        self.log = DaemonLog(EVENTS_WRITE, config["log"]["level"], self.service_manager.report)
        self.admission = Admission(config["limits"], config["access"])
        self.session_rules = SessionRules(self.admission)
        self.handlers = HandlerPool(self.loop, self.log, self.admission, self.session_rules)
        self.acceptor = Acceptor(
            self.loop, self.log, self.admission, self.handlers, inherited=config["inherited"]
        )
        self.logger = LoggerSupervisor(self.loop, self.log, config["logger"], self.streams)
        self.changes = ChangeQueue(self.service_manager.reloading, self.service_manager.ready)
        self.reloader = Reloader(self.loop, self.log, self.changes, self)
        self.upgrader = Upgrader(self.loop, self.log, self.changes, self)
        self.control = ControlServer(
            self.loop,
            sockets.from_fd(CONTROL, "unix"),
            self.fork,
            self._routes(),
            config["control_group"],
        )
        self._tls_contexts = tls_contexts.load_contexts(config["listeners"])
        self._startup = Startup(state, self.fork)

    @property
    def listeners(self) -> list[Listener]:
        """The open listeners."""
        return self.acceptor.listeners

    # Start

    def prepare(self) -> list[Listener]:
        """Do the part of a start that no other process notices; return the listeners."""
        state = self._startup.state
        if state is not None:
            self.lifetime.restore_state(state["lifetime"])
            self.log.restore_state(state["log"])
            self.acceptor.restore_state(state["acceptor"])
            self.handlers.restore_state(state["handlers"])
        config = self.config
        handler = self._make_handler(config, self._tls_contexts)
        handler.warm_up()
        self.handlers.configure(handler, config["spare"], config["clients_each"])
        return self._startup.listeners(config)

    def run(self) -> None:
        """Serve until told to stop."""
        self.streams.hide()
        self.signals.install()
        self.control.open()
        self._show_title()
        listeners = self.prepare()
        if self._startup.state is None:
            self._start(listeners)
        else:
            self._resume(listeners, self._startup.state)
        self.session_rules.configure(self.listeners, self._tls_contexts, time.monotonic())
        self.handlers.terminate_denied()
        tls_contexts.warn_of_expiry(self.loop.timers, self.log, self.config["listeners"])
        self.service_manager.start()
        while not self.is_stopping or len(self.handlers) or self.acceptor.is_closing:
            self._run_once()
        self._exit()

    def _start(self, listeners: list[Listener]) -> None:
        """Start a new daemon; stop if the command that started it has been interrupted."""
        self.logger.start(self.config["log"])
        for listener in listeners:
            self.acceptor.add_listener(listener)
        self._log_lifecycle(log_protocol.SERVER_STARTED)
        for listener in listeners:
            self.log.event("info", log_protocol.SERVER_LISTENING, **listener.fields())
        for fence, why in self.config["unconfined"].items():
            self.log.event("debug", log_protocol.SERVER_UNCONFINED, fence=fence, why=why)
        names = [[listener.name, listener.service] for listener in listeners]
        if not self._startup.notify({"pid": self.pid, "listening": names}):
            self._stop()

    def _resume(self, listeners: list[Listener], state: State) -> None:
        """Continue a daemon that was another version until now."""
        requester = self._startup.requester
        if requester is not None:
            self.loop.track_fd(requester)
            os.set_inheritable(requester, False)
        # Clients that left during the upgrade make room for those in the backlog.
        self.handlers.check_alive()
        for listener in listeners:
            listener.socket.listen(listener.config["backlog"])
            self.acceptor.add_listener(listener)
        self.acceptor.restore_pending(state["acceptor"]["pending_connections"])
        # Only now: the logger's program must not get a descriptor that the loop does not track yet.
        self.logger.take_over(self.config["log"], state["logger"])
        outcome = {
            "version": __version__,
            "from": state["version"],
            "changes": changes(state["settings"], self.config["settings"]),
        }
        self.log.event("info", log_protocol.SERVER_UPGRADED, **outcome)
        self._startup.notify({**outcome, "pid": self.pid, "sessions": self.admission.clients})

    # Run

    def _run_once(self) -> None:
        # Conditions first, calls only where needed: each page touched in a turn is copied by forks.
        log, handlers, service_manager = self.log, self.handlers, self.service_manager
        if log.pending or log.reliable or log.lost:
            self._flush_log()
        reported = service_manager.reported_clients
        if service_manager.wants_status and reported != self.admission.clients:
            service_manager.schedule_status()
        has_idle_task = handlers.spare > 0 and handlers.needs_spare and not self.is_stopping
        if not self.loop.run_once(has_idle_task=has_idle_task) and has_idle_task:
            handlers.fork_spare()

    def _flush_log(self) -> None:
        """Write pending events to the event pipe; retry later what has no room."""
        self.log.flush()
        if self.log.has_backlog and "log backlog" not in self.loop.timers:
            when = time.monotonic() + FLUSH_RETRY_SECONDS
            self.loop.timers.set("log backlog", when, self.log.flush)

    def fork(self, work: Callable[[], object], fd: int) -> None:
        """Fork a child that does `work` with the descriptor `fd`. Raises OSError."""
        jobs = [(fd, work, ())]
        on_failure = log_protocol.log_child_failure
        _, error = fork.fork_each(jobs, FIRST_MASTER_FD, self.loop.highest_fd, on_failure)
        if error is not None:
            raise error

    def log_failure(self, error: Exception) -> None:
        """Log the exception that ends the daemon, and report it to the command that waits."""
        place = call_path(error)
        self.log.event("error", log_protocol.SERVER_FAILED, error=repr(error), place=place)
        self.log.flush()
        self._startup.notify({"error": f"internal error: {error!r}", "permission": False})
        self.service_manager.send_status()

    def _log_lifecycle(self, event: str, **more: object) -> None:
        identity = {"version": __version__, "config": self.config["file"]}
        self.log.event("info", event, **identity, **more)

    def _show_title(self) -> None:
        self.title.show(of_master(self.config["file"]))

    def _describe(self) -> tuple[int, str]:
        """Return the number of clients, and the status line for the service manager."""
        names = [f"{one.name} ({one.service})" for one in self.acceptor.listeners]
        clients, lost = self.admission.clients, self._count_log_lines()[1]
        where = ", ".join(names) or "not accepting"
        text = f"{where}; {clients} client{'' if clients == 1 else 's'}"
        return clients, text + (f"; {lost} log line{'' if lost == 1 else 's'} lost" if lost else "")

    def _count_log_lines(self) -> tuple[int, int]:
        """Return how many events were written to the log and how many were lost."""
        written, lost = LogCounters(LOG_COUNTERS).read()
        return written, lost + self.log.lost_total

    # Configure

    def apply_config(
        self, config: RuntimeConfig, opened: list[Listener], contexts: list[TlsContext | None]
    ) -> None:
        """Run with another configuration; `opened` are its new listeners.

        Whatever it raises, the old configuration is in effect again: all that can fail comes first.
        """
        old = self.config
        config["service_manager"], config["inherited"] = old["service_manager"], old["inherited"]
        kept, dropped, _ = pair_listeners(self.acceptor.listeners, config["listeners"])
        old_pairs = [(listener, listener.config) for listener, _ in kept]
        try:
            handlers = self._make_handler(config, contexts), config["spare"], config["clients_each"]
            self._configure(config, kept)
        except Exception:
            self._configure(old, old_pairs)
            raise
        # Before the handlers change: clients in the backlog get the service of their listener.
        for listener in dropped:
            successor = next((one for one in opened if excludes(listener, one.config)), None)
            self.acceptor.close_listener(listener, successor)
        for listener in opened:
            self.acceptor.add_listener(listener)
            self.log.event("info", log_protocol.SERVER_LISTENING, **listener.fields())
        self._tls_contexts = contexts
        self.handlers.configure(*handlers)
        self.service_manager.forget_problem()
        self._show_title()
        self.session_rules.configure(self.listeners, contexts, time.monotonic())
        self.handlers.terminate_denied()

    def after_closing(self, action: Callable[[], object]) -> None:
        """Call `action` as soon as the listeners are closed that are no longer wanted."""
        self.acceptor.after_closing(action)

    def _configure(
        self, config: RuntimeConfig, pairs: list[tuple[Listener, ListenerConfig]]
    ) -> None:
        """Configure all parts but the handlers; `pairs` are the listeners that stay open."""
        old_log = self.config["log"]
        self.config = config
        for listener, listener_config in pairs:
            listener.configure(listener_config)
            listener.socket.listen(listener_config["backlog"])
        self.shutdown_pipe.grace = config["stop_timeout"]
        self.admission.configure(config["limits"], config["access"])
        tls_contexts.warn_of_expiry(self.loop.timers, self.log, config["listeners"])
        if config["log"] != old_log:
            self.logger.configure(config["log"])

    def _make_handler(self, config: RuntimeConfig, contexts: list[TlsContext | None]) -> Handler:
        """Return what serves clients by a configuration."""
        return Handler(
            config,
            commands.make(config["commands"]),
            contexts,
            self.title,
            self.shutdown_pipe,
            EVENTS_WRITE,
            NOTICES_WRITE,
        )

    # Upgrade

    def save_state(self, requester: int | None) -> State:
        """Return the state for the next version, which reports to the descriptor `requester`."""
        return {
            "format": FORMAT,
            "version": __version__,
            "settings": self.config["settings"],
            "restart_only": self.config["restart_only"],
            "service_manager": self.config["service_manager"],
            "inherited": self.config["inherited"],
            "lifetime": self.lifetime.save_state(),
            "log": self.log.save_state(),
            "acceptor": self.acceptor.save_state(),
            "handlers": self.handlers.save_state(),
            "logger": self.logger.pid,
            "requester": requester,
        }

    def fds_to_inherit(self) -> list[int]:
        """Return the descriptors that stay open over the exec and are close-on-exec now."""
        return self.acceptor.fds

    def log_pending(self) -> None:
        """Log what is due; called before the state is saved for the exec."""
        self.acceptor.log_suppressed()
        self.log.flush()

    def requeue_requests(self) -> None:
        """Send this process the signals again that it has noted; signals are blocked."""
        self.signals.requeue()
        if self.reloader.cancel_waiting(UPGRADED):
            signal.raise_signal(signal.SIGHUP)

    # Requests

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

    def _routes(self) -> dict[bytes, Route]:
        """Return what answers each request on the control socket."""
        return {
            b"status": Route(self._answer_status),
            b"source": Route(self._answer_source, has_argument=True),
            b"reload": Route(
                lambda request: self.reloader.request(request.reply), is_privileged=True
            ),
            b"upgrade": Route(
                lambda request: self.upgrader.request(request.reply, request.fd),
                is_privileged=True,
            ),
            b"upgrade-to": Route(
                lambda request: self.upgrader.request(
                    request.reply, request.fd, os.fsdecode(request.argument).split("\0")
                ),
                has_argument=True,
                is_privileged=True,
                names_code=True,
            ),
        }

    def _answer_status(self, request: ControlRequest) -> None:
        # Read here: the child closes the file with the counters.
        counts = *self._count_log_lines(), self.logger.running_pid
        request.reply_from_child(lambda: status.collect(self, *counts))

    def _answer_source(self, request: ControlRequest) -> None:
        try:
            source = addresses.parse(request.argument.decode("ascii", "replace"))
        except (OSError, ValueError):
            request.reply({"error": "not an address"})
        else:
            request.reply(
                {
                    **self.admission.report(source, time.monotonic()),
                    "config": self.config["file"],
                    "checksum": self.config["checksum"],
                    "listeners": [
                        listener_report(one.config, one.name, source)
                        for one in self.acceptor.listeners
                    ],
                }
            )

    # Stop

    def _stop(self) -> None:
        """Accept no more clients, and let sessions finish."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self._log_lifecycle(log_protocol.SERVER_STOPPING, clients=self.admission.clients)
        self.acceptor.stop()
        self.service_manager.stopping()
        self.changes.close()
        self.upgrader.stop()
        self.reloader.stop()
        self.log.flush()
        os.write(SHUTDOWN_WRITE, b".")
        self.handlers.drain_idle()
        when = time.monotonic() + self.config["stop_timeout"] + KILL_MARGIN_SECONDS
        self.loop.timers.set("kill", when, self.handlers.kill)

    def _stop_now(self) -> None:
        """End all sessions without waiting."""
        self._stop()
        if not self._is_killing:
            self._is_killing = True
            os.close(SHUTDOWN_WRITE)
            self.loop.timers.set("kill", time.monotonic() + KILL_MARGIN_SECONDS, self.handlers.kill)

    def _exit(self) -> None:
        """Remove what the daemon has made, and have the logger write the rest of the log."""
        self.logger.flush_pending()
        self.acceptor.log_suppressed()
        self._log_lifecycle(log_protocol.SERVER_STOPPED, accepted=self.acceptor.accepted)
        # The pidfile last: a starter that finds none can take everything else. It is emptied first,
        # because the daemon's user may not be allowed to remove files from its folder.
        _unlink(self.config["control"])
        os.ftruncate(PIDFILE, 0)
        _unlink(self.config["pidfile"])
        self.logger.shut_down()


def main() -> None:
    """Run the master. Its descriptors are in place (`tetrad.ipc.fds`).

    The launcher or the version before has written the configuration and, for an upgrade, the state.
    """
    with open(RUNTIME_CONFIG, "rb", closefd=False) as file:
        config, state = marshal.load(file), marshal.load(file)  # noqa: S302 - written by tetrad
    os.ftruncate(RUNTIME_CONFIG, 0)
    gc.disable()
    master = Master(config, state)
    try:
        master.run()
    except Exception as error:  # noqa: BLE001 - any exception ends the daemon; the log has which
        try:
            master.log_failure(error)
        finally:
            os._exit(fork.EX_SOFTWARE)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # no permission for the folder: an unlocked pidfile is as good as none
