"""The handler: a child of the master that serves one client, or several one after another.

It has the event pipe, the notice pipe, the shutdown pipe, and its client or the channel through
which clients arrive; the fork closes all other descriptors of the master (`tetrad.system.fork`).
A handler never accepts a connection and never returns to the master's loop.
"""

from __future__ import annotations

import _socket
import os
from select import POLLIN

from tetrad.handler.commands import immediate
from tetrad.handler.fast_path import FastPath, SlowPathOnly
from tetrad.handler.idle_wait import IdleWait
from tetrad.handler.services import CommandService, EchoService, Service
from tetrad.handler.session import Session
from tetrad.ipc import exit_notices, fd_passing, log_protocol
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.system import fork
from tetrad.system.lean_signal import signal
from tetrad.system.proctitle import ProcessTitle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.handler.commands import Command
    from tetrad.handler.progress import SessionProgress
    from tetrad.ipc.fd_passing import ClientHandoff
    from tetrad.ipc.log_protocol import LogWriter
    from tetrad.ipc.runtime_config import ListenerConfig, RuntimeConfig
    from tetrad.tls.context import TlsContext

    ServeClient = Callable[[_socket.socket, ClientHandoff, bytes], bool]
    """Serves a client and sends its exit notice (the last argument).

    Returns True if the handler can serve another client.
    """

_WAITING = b"(waiting)"
"""The title of a reusable handler without a client, behind `handler`."""

_WARM_UP_ROUNDS = 64
"""More runs than CPython needs before it specialises an instruction."""

_WARM_UP_COMMANDS = 8
"""Commands that a dummy client sends before it reads: they fit a socket, and so do the answers."""


class SessionRunner:
    """The slow path: runs the sessions that the fast path does not finish."""

    def __init__(  # noqa: PLR0913, PLR0917 - all that it uses
        self,
        config: RuntimeConfig,
        commands: dict[bytes, Command],
        tls_contexts: list[TlsContext | None],
        shutdown_pipe: ShutdownPipe,
        log: LogWriter,
        notices_fd: int,
    ) -> None:
        self._config = config["session"]
        self._services = [_service(listener, commands) for listener in config["listeners"]]
        self._tls_contexts = tls_contexts
        if any(tls_contexts):
            from tetrad.handler.tls_session import TlsSession  # noqa: PLC0415 - only for TLS

            self._tls_session = TlsSession
        self._shutdown_pipe = shutdown_pipe
        self._log = log
        self._notices_fd = notices_fd

    def run(
        self,
        socket: _socket.socket,
        client: ClientHandoff,
        progress: SessionProgress,
        notice: bytes,
    ) -> bool:
        """Run a session to its end and send its exit notice.

        Returns True if the handler can serve another client.
        """
        _, _, index, context, _ = client
        shutdown_pipe, log = self._shutdown_pipe, self._log
        log.set_context(context)
        log.append(progress.log_lines, 1 + progress.commands)
        tls = self._tls_contexts[index]
        arguments = socket, self._config, shutdown_pipe, log, progress
        session: Session
        if tls is None:
            session = Session(*arguments)
        else:
            report = self._notices_fd, notice
            session = self._tls_session(*arguments, tls=tls, report=report)
        service = self._services[index]
        service.begin(client)
        reason = session.serve(service)
        # A lowered priority cannot be raised again, so the next client gets another handler.
        is_reusable = session.has_normal_priority and not shutdown_pipe.stopping
        if not is_reusable:
            notice = exit_notices.as_exiting(notice)
        notice = exit_notices.with_lost_count(notice, log.take_lost())
        notice = exit_notices.with_rejection(notice, reason)
        exit_notices.send_notice(self._notices_fd, notice)
        return is_reusable


class Handler:
    """Everything that a handler serves with: made in the master, so that each fork inherits it.

    Events are written to `events_fd`, exit notices to `notices_fd`. `serve_functions` has one
    function per listener. The objects form no reference cycle, because the master collects no
    garbage and drops a Handler at each reload.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - all that it uses
        self,
        config: RuntimeConfig,
        commands: dict[bytes, Command],
        tls_contexts: list[TlsContext | None],
        title: ProcessTitle,
        shutdown_pipe: ShutdownPipe,
        events_fd: int,
        notices_fd: int,
    ) -> None:
        self._config = config
        self._commands = commands
        self._shutdown_pipe = shutdown_pipe
        self._notices_fd = notices_fd
        self._idle_wait = IdleWait(config["session"], shutdown_pipe, title)
        log = log_protocol.LogWriter(
            events_fd, config["log"]["level"], log_protocol.PIPE_TIMEOUT_SECONDS
        )
        runner = SessionRunner(config, commands, tls_contexts, shutdown_pipe, log, notices_fd)
        self._paths = [
            SlowPathOnly(self._idle_wait, runner.run)
            if listener["tls"]
            else FastPath(
                commands if listener["service"] == "command" else {},
                listener["reply_terminator"].encode(),
                log,
                notices_fd,
                self._idle_wait,
                runner.run,
            )
            for listener in config["listeners"]
        ]
        self.serve_functions: list[ServeClient] = [path.serve for path in self._paths]

    def refresh_answers(self) -> None:
        """Prepare the answers of the current second. To be called before each fork."""
        for path in self._paths:
            path.refresh_answers()

    def serve_many(self, channel: _socket.socket, clients: int, number: int) -> None:
        """Serve up to `clients` clients that arrive through `channel`, then return.

        `number` is the handler's, for its notices.
        """
        # Copy the pages that sessions write to before a client waits for that.
        try:
            self._serve_dummies([self._warm_up_words()], [])
        except OSError:
            pass  # no descriptor or memory is left: the first client will wait
        self.refresh_answers()
        idle = exit_notices.make_notice(exit_notices.IDLE, number)
        exiting = exit_notices.make_notice(exit_notices.EXITING, number)
        is_last, is_reusable = False, True
        while is_reusable and not is_last:
            self._idle_wait.set_up_process(_WAITING)
            is_last = _wait_for_client(channel, self._shutdown_pipe)
            if is_last:
                channel.shutdown(_socket.SHUT_RD)  # the master gives further clients to others
            arrived = fd_passing.receive_client(channel)
            if arrived is None:
                exit_notices.send_notice(self._notices_fd, exiting)
                return
            socket, client = arrived
            clients -= 1
            is_last = is_last or not clients
            self.refresh_answers()
            serve = self.serve_functions[client[2]]
            is_reusable = serve(socket, client, exiting if is_last else idle)
            socket.close()

    def warm_up(self) -> None:
        """Serve dummy clients in the master, so that each fork inherits warm code.

        CPython writes what it learns about running code (specialised instructions, cached
        attributes) into memory. What it learns before the fork is not copied after it. Raises
        OSError.
        """
        words = self._warm_up_words()
        split = [[word[:1], word[1:]] for word in words[:1]]
        staying = [word for word in words if not self._commands[word].closes][:1]
        # The sessions set the wakeup descriptor to -1, as in a handler; until it is restored, no
        # signal may arrive.
        with fork.signals_blocked:
            wakeup_fd = signal.set_wakeup_fd(-1)
            try:
                self._serve_dummies([words, *split] * _WARM_UP_ROUNDS, [staying] * _WARM_UP_ROUNDS)
            finally:
                signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)

    def _warm_up_words(self) -> list[bytes]:
        """Return some immediate commands."""
        return list(immediate(self._commands))[:_WARM_UP_COMMANDS]

    def _serve_dummies(self, leaving: list[list[bytes]], staying: list[list[bytes]]) -> None:
        """Serve dummy clients, each given by what it sends, at one listener of each service.

        A second handler serves them, which writes to /dev/null and has a shutdown pipe of its own.
        Clients in `leaving` close their side at once. Those in `staying` do not: their sessions end
        by a request to stop. Raises OSError.
        """
        listeners = {one["service"]: one for one in self._config["listeners"] if not one["tls"]}
        config = self._config.copy()
        config["listeners"] = list(listeners.values())
        title = ProcessTitle(os.devnull)  # operators and commands know the master by its own
        fds = [os.open(os.devnull, os.O_WRONLY)]
        try:
            fds += os.pipe()
            null, read_end, write_end = fds
            shutdown_pipe = ShutdownPipe(read_end, 0.0, signals=frozenset())
            no_tls: list[TlsContext | None] = [None] * len(listeners)
            handler = Handler(config, self._commands, no_tls, title, shutdown_pipe, null, null)
            for index in range(len(listeners)):
                for words in leaving:
                    _serve_dummy(handler, index, words)
            os.write(write_end, b".")
            for index in range(len(listeners)):
                for words in staying:
                    shutdown_pipe.stopping = shutdown_pipe.signals_unblocked = False
                    _serve_dummy(handler, index, words, stays=True)
                    title.show(b"")
        finally:
            for fd in fds:
                os.close(fd)


def _service(listener: ListenerConfig, commands: dict[bytes, Command]) -> Service:
    if listener["service"] == "echo":
        return EchoService()
    return CommandService(commands, listener["reply_terminator"].encode())


def _serve_dummy(handler: Handler, index: int, words: list[bytes], *, stays: bool = False) -> None:
    """Serve one dummy client, which is passed through a channel if that is possible."""
    client: ClientHandoff = ("", "unix", index, b'"client":"127.0.0.1:65535"', "")
    master_end, handler_end = fd_passing.open_channel()
    server_end, client_end = fd_passing.open_channel()
    is_passed = fd_passing.send_client(master_end, server_end, client)
    arrived = fd_passing.receive_client(handler_end) if is_passed else None
    socket, client = arrived or (server_end, client)
    for word in words:
        client_end.send(word)
    if stays:
        socket.settimeout(0)
    else:
        client_end.shutdown(_socket.SHUT_WR)
    handler.refresh_answers()
    handler.serve_functions[index](
        socket, client, exit_notices.make_notice(exit_notices.EXITING, 0)
    )
    for one in (socket, client_end, server_end, master_end, handler_end):
        one.close()


def _wait_for_client(channel: _socket.socket, shutdown_pipe: ShutdownPipe) -> bool:
    """Wait for a client or the end of the channel; True if the handler is asked to stop."""
    shutdown_pipe.poll.register(channel.fileno(), POLLIN)
    ready = dict(shutdown_pipe.wait(shutdown_pipe.poll, None, is_stopping=False))
    shutdown_pipe.poll.unregister(channel.fileno())
    return shutdown_pipe.fd in ready or not ready
