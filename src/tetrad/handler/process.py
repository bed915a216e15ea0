"""The handler: a child of the master that serves one client, or several one after another.

It has the journal, the notices to the master, the lifeline from it, and a client; nothing else of
the master's is left open (see `tetrad.system.fork`). It never accepts and never returns.
"""

from __future__ import annotations

import _socket
import os
from select import POLLIN

from tetrad.handler import commands
from tetrad.handler.fast_path import FastPath, SlowPathOnly
from tetrad.handler.idle_wait import IdleWait
from tetrad.handler.services import CommandService, EchoService, Service
from tetrad.handler.session import Session
from tetrad.ipc import exit_notices, fd_passing, log_protocol
from tetrad.ipc.fds import EVENTS_WRITE, NOTICES_WRITE
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.system import fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tetrad.handler.commands import Command
    from tetrad.handler.progress import SessionProgress
    from tetrad.ipc.fd_passing import ClientHandoff
    from tetrad.ipc.runtime_config import ListenerConfig, RuntimeConfig
    from tetrad.system.proctitle import ProcessTitle
    from tetrad.tls.context import TlsContext

    Server = Callable[[_socket.socket, ClientHandoff, bytes], bool]
    """Serves a client, sends its notice, and tells whether it can serve another."""

_WAITING = b"(waiting)"

_MOST_WORDS = 8
"""What a client says in a rehearsal before it listens: that must fit a socket, and its answers."""

_REHEARSALS = 64
"""More than the interpreter wants to see before it specialises an instruction."""


class Handler:
    """What a handler serves with. Made in the master, so that a fork finds all of it ready."""

    def __init__(
        self,
        config: RuntimeConfig,
        known: dict[bytes, Command],
        tls_contexts: list[TlsContext | None],
        shutdown_pipe: ShutdownPipe,
        title: ProcessTitle,
    ) -> None:
        self._session = config["session"]
        self._level = config["log"]["level"]
        self._commands = known
        self._title = title
        self._listeners = config["listeners"]
        self._services = [_service(listener, known) for listener in self._listeners]
        self._tls_contexts = tls_contexts
        if any(tls_contexts):
            from tetrad.handler.tls_session import TlsSession  # noqa: PLC0415 - only for TLS

            self._tls_session = TlsSession
        self._shutdown_pipe = shutdown_pipe
        self._tell(EVENTS_WRITE, NOTICES_WRITE)

    def let_go(self) -> None:
        """Be of no more use: break the circle that we are in, as the master collects no garbage."""
        self._quick.clear()
        self.servers.clear()
        del self._idle_wait

    def refresh(self) -> None:
        """Have the answers ready for clients that are about to be forked for."""
        for quick in self._quick:
            quick.refresh()

    def serve_many(self, channel: _socket.socket, clients: int, number: int) -> None:
        """Serve up to `clients` clients that come through the channel, then leave."""
        self._warm_up()
        idle, gone = (
            exit_notices.make_notice(kind, number)
            for kind in (exit_notices.IDLE, exit_notices.EXITING)
        )
        is_last, is_fit = False, True
        while is_fit and not is_last:
            self._idle_wait.settle(_WAITING)
            is_last = _wait(channel, self._shutdown_pipe)
            if is_last:
                channel.shutdown(_socket.SHUT_RD)  # who has not been passed to us goes to another
            arrived = fd_passing.receive_client(channel)
            if arrived is None:
                exit_notices.send_notice(self._notices, gone)
                return
            socket, client = arrived
            clients -= 1
            is_last = is_last or not clients
            self.refresh()
            is_fit = self.servers[client[2]](socket, client, gone if is_last else idle)
            socket.close()

    def rehearse(self) -> None:
        """Serve clients that are not there, so that every child finds the code warm.

        What the interpreter learns about code while it runs (specialised instructions, cached
        attributes) is written into memory; learnt before the fork, it is not copied after it.
        Raises OSError.
        """
        words = self._words()
        in_pieces = [[word[:1], word[1:]] for word in words[:1]]
        of_who_stays = [word for word in words if not self._commands[word].closes][:1]
        with fork.AsIfForked():
            self._rehearse([words, *in_pieces] * _REHEARSALS, [of_who_stays] * _REHEARSALS)

    def _warm_up(self) -> None:
        """Have pages of our own before a client waits for them, unless there is no room for it."""
        try:
            self._rehearse([self._words()], [])
        except OSError:
            pass

    def _words(self) -> list[bytes]:
        """Return some commands that do nothing but answer, and that at once."""
        return list(commands.prompt(self._commands))[:_MOST_WORDS]

    def _rehearse(self, sessions: list[list[bytes]], long: list[list[bytes]]) -> None:
        """Serve sessions that nobody is told of; each is what its client says, read by read.

        In `long` ones the client stays, until the master has all handlers stop.
        """
        nowhere = os.open(os.devnull, os.O_WRONLY)
        hears, holds = os.pipe()
        before, self._shutdown_pipe = (
            self._shutdown_pipe,
            ShutdownPipe(hears, 0.0, signals=frozenset()),
        )
        shown = self._title.text
        self._tell(nowhere, nowhere)
        try:
            for place in self._plain_places():
                for words in sessions:
                    self._serve_nobody(place, words)
            os.write(holds, b".")
            for place in self._plain_places():
                for words in long:
                    self._shutdown_pipe.stopping = self._shutdown_pipe.signals_unblocked = False
                    self._serve_nobody(place, words, stays=True)
                    self._title.show(shown)
        finally:
            self._title.show(shown)
            self._shutdown_pipe = before
            self._tell(EVENTS_WRITE, NOTICES_WRITE)
            for fd in (nowhere, hears, holds):
                os.close(fd)

    def _plain_places(self) -> Iterable[int]:
        """Return the place of one listener of each service without TLS."""
        plain = [config for config in self._listeners if not config["tls"]]
        return {config["service"]: config["index"] for config in plain}.values()

    def _serve_nobody(self, place: int, words: list[bytes], *, stays: bool = False) -> None:
        nobody = ("", "unix", place, b'"client":"127.0.0.1:65535"', "")
        gives, takes = fd_passing.open_channel()
        given, other = fd_passing.open_channel()
        is_given = fd_passing.send_client(gives, given, nobody)
        socket, client = (fd_passing.receive_client(takes) if is_given else None) or (given, nobody)
        for word in words:
            other.send(word)
        if stays:
            socket.settimeout(0)
        else:
            other.shutdown(_socket.SHUT_WR)
        self.refresh()
        self.servers[place](socket, client, exit_notices.make_notice(exit_notices.EXITING, 0))
        for end in (socket, other, given, gives, takes):
            end.close()

    def _tell(self, log: int, master: int) -> None:
        """Have them told what happens, from now on."""
        self._notices = master
        self._idle_wait = IdleWait(self._session, self._shutdown_pipe, self._title, self._go_on)
        self._log = log_protocol.LogWriter(log, self._level, log_protocol.PIPE_TIMEOUT_SECONDS)
        self._quick = [
            SlowPathOnly(self._idle_wait)
            if config["tls"]
            else FastPath(
                self._commands if config["service"] == "command" else {},
                config["reply_terminator"].encode(),
                self._log,
                master,
                self._idle_wait,
            )
            for config in self._listeners
        ]
        self.servers: list[Server] = [quick.serve for quick in self._quick]

    def _go_on(
        self,
        socket: _socket.socket,
        client: ClientHandoff,
        progress: SessionProgress,
        notice: bytes,
    ) -> bool:
        """Serve a client that takes longer, and tell the master; False if it is to be the last."""
        _, _, place, context, _ = client
        shutdown_pipe = self._shutdown_pipe
        self._log.set_context(context)
        self._log.append(progress.told, 1 + progress.commands)
        tls = self._tls_contexts[place]
        arguments = socket, self._session, shutdown_pipe, self._log, progress
        session = Session(*arguments) if tls is None else self._tls_session(*arguments, tls=tls)
        session.serve(self._services[place].another(client))
        # Who has become less important cannot take that back: the next client gets another.
        is_fit = session.is_urgent and not shutdown_pipe.stopping
        if not is_fit:
            notice = exit_notices.as_final(notice)
        exit_notices.send_notice(
            self._notices, exit_notices.with_lost_count(notice, self._log.take_lost())
        )
        return is_fit


def _service(listener: ListenerConfig, known: dict[bytes, Command]) -> Service:
    if listener["service"] == "echo":
        return EchoService()
    return CommandService.of(known, listener["reply_terminator"].encode())


def _wait(channel: _socket.socket, shutdown_pipe: ShutdownPipe) -> bool:
    """Wait until there is a client, or none to come; True if we are to leave."""
    shutdown_pipe.poll.register(channel.fileno(), POLLIN)
    ready = dict(shutdown_pipe.wait(shutdown_pipe.poll, None, is_stopping=False))
    shutdown_pipe.poll.unregister(channel.fileno())
    return shutdown_pipe.fd in ready or not ready
