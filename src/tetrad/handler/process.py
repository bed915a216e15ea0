"""The handler: a child of the master that serves one client, or several one after another.

It has the journal, the notices to the master, the lifeline from it, and a client; nothing else of
the master's is left open (see `tetrad.system.fork`). It never accepts and never returns.
"""

from __future__ import annotations

import _socket
import os
from select import POLLIN

from tetrad.handler import commands
from tetrad.handler.fast_path import FastPath
from tetrad.handler.idle_wait import IdleWait
from tetrad.handler.services import CommandService, EchoService, Service
from tetrad.handler.session import Session
from tetrad.ipc import exit_notices, fd_passing, log_protocol
from tetrad.ipc.fds import JOURNAL, NOTICES
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.system import fork
from tetrad.tls.context import SlowPathOnly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tetrad.handler.commands import Command
    from tetrad.handler.fast_path import SessionProgress
    from tetrad.handler.tls_session import TlsContext
    from tetrad.ipc.runtime_config import ListenerConfig, RuntimeConfig
    from tetrad.master.connections import ClientHandoff
    from tetrad.system.proctitle import ProcessTitle

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
        plan: RuntimeConfig,
        known: dict[bytes, Command],
        encryptions: list[TlsContext | None],
        lifeline: ShutdownPipe,
        title: ProcessTitle,
    ) -> None:
        self._session = plan["session"]
        self._level = plan["log"]["level"]
        self._commands = known
        self._title = title
        self._listeners = plan["listeners"]
        self._services = [_service(listener, known) for listener in self._listeners]
        self._encryptions = encryptions
        self._lifeline = lifeline
        self._tell(JOURNAL, NOTICES)

    def let_go(self) -> None:
        """Be of no more use: break the circle that we are in, as the master collects no garbage."""
        self._quick.clear()
        self.servers.clear()
        del self._stay

    def refresh(self) -> None:
        """Have the answers ready for clients that are about to be forked for."""
        for quick in self._quick:
            quick.refresh()

    def serve_many(self, channel: _socket.socket, clients: int, number: int) -> None:
        """Serve up to `clients` clients that come through the channel, then leave."""
        self._warm_up()
        idle, gone = (
            exit_notices.record(kind, number) for kind in (exit_notices.IDLE, exit_notices.GONE)
        )
        is_last, is_fit = False, True
        while is_fit and not is_last:
            self._stay.settle(_WAITING)
            is_last = _wait(channel, self._lifeline)
            if is_last:
                channel.shutdown(_socket.SHUT_RD)  # who has not been passed to us goes to another
            arrived = fd_passing.take(channel)
            if arrived is None:
                exit_notices.send(self._notices, gone)
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
        before, self._lifeline = self._lifeline, ShutdownPipe(hears, 0.0, signals=frozenset())
        shown = self._title.text
        self._tell(nowhere, nowhere)
        try:
            for place in self._plain_places():
                for words in sessions:
                    self._serve_nobody(place, words)
            os.write(holds, b".")
            for place in self._plain_places():
                for words in long:
                    self._lifeline.stopping = self._lifeline.is_heard = False
                    self._serve_nobody(place, words, stays=True)
                    self._title.set(shown)
        finally:
            self._title.set(shown)
            self._lifeline = before
            self._tell(JOURNAL, NOTICES)
            for fd in (nowhere, hears, holds):
                os.close(fd)

    def _plain_places(self) -> Iterable[int]:
        """Return the place of one listener of each service that is not encrypted."""
        plain = [plan for plan in self._listeners if not plan["tls"]]
        return {plan["service"]: plan["place"] for plan in plain}.values()

    def _serve_nobody(self, place: int, words: list[bytes], *, stays: bool = False) -> None:
        nobody = ("", "unix", place, b'"client":"127.0.0.1:65535"', "")
        gives, takes = fd_passing.channel()
        given, other = fd_passing.channel()
        is_given = fd_passing.give(gives, given, nobody)
        socket, client = (fd_passing.take(takes) if is_given else None) or (given, nobody)
        for word in words:
            other.send(word)
        if stays:
            socket.settimeout(0)
        else:
            other.shutdown(_socket.SHUT_WR)
        self.refresh()
        self.servers[place](socket, client, exit_notices.record(exit_notices.GONE, 0))
        for end in (socket, other, given, gives, takes):
            end.close()

    def _tell(self, journal: int, master: int) -> None:
        """Have them told what happens, from now on."""
        self._notices = master
        self._stay = IdleWait(self._session, self._lifeline, self._title, self._go_on)
        self._journal = log_protocol.LogWriter(journal, self._level, log_protocol.ROOM_SECONDS)
        self._quick = [
            SlowPathOnly(self._stay)
            if plan["tls"]
            else FastPath(
                self._commands if plan["service"] == "command" else {},
                plan["reply_terminator"].encode(),
                self._journal,
                master,
                self._stay,
            )
            for plan in self._listeners
        ]
        self.servers: list[Server] = [quick.serve for quick in self._quick]

    def _go_on(self, socket: _socket.socket, client: ClientHandoff, begun: SessionProgress, notice: bytes) -> bool:
        """Serve a client that takes longer, and tell the master; False if it is to be the last."""
        _, _, place, context, _ = client
        lifeline = self._lifeline
        self._journal.speak_of(context)
        self._journal.gather(begun.told, 1 + begun.commands)
        encrypted = self._encryptions[place]
        begin = Session if encrypted is None else encrypted.session
        session = begin(socket, self._session, lifeline, self._journal, begun)
        session.serve(self._services[place].another(client))
        # Who has become less important cannot take that back: the next client gets another.
        is_fit = session.is_urgent and not lifeline.stopping
        if not is_fit:
            notice = exit_notices.gone(notice)
        exit_notices.send(self._notices, exit_notices.with_lost(notice, self._journal.take_lost()))
        return is_fit


def _service(listener: ListenerConfig, known: dict[bytes, Command]) -> Service:
    if listener["service"] == "echo":
        return EchoService()
    return CommandService.of(known, listener["reply_terminator"].encode())


def _wait(channel: _socket.socket, lifeline: ShutdownPipe) -> bool:
    """Wait until there is a client, or none to come; True if we are to leave."""
    lifeline.poll.register(channel.fileno(), POLLIN)
    ready = dict(lifeline.wait(lifeline.poll, None, is_stopping=False))
    lifeline.poll.unregister(channel.fileno())
    return lifeline.fd in ready or not ready
