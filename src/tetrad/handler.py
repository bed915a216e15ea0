"""The handler: a child of the master that serves one client, or several one after another.

It has the journal, the notices to the master, the lifeline from it, and a client; nothing else of
the master's is left open (see `tetrad.spawn`). It never accepts and never returns.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
import sys

from tetrad import events, notices, spawn
from tetrad.descriptors import JOURNAL, LIFELINE, NOTICES, OWN
from tetrad.lifeline import Lifeline
from tetrad.listeners import FAMILIES
from tetrad.services import CommandService, EchoService, Service
from tetrad.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.commands import Clock, Close
    from tetrad.plan import Plan
    from tetrad.title import Title

_LONGEST_CLIENT = 1024
_FD_BYTES = 4

_REHEARSALS = 20
"""More than the interpreter wants to see before it specialises an instruction."""


class Handler:
    """What a handler serves with. Made in the master, so that a fork finds all of it ready."""

    def __init__(self, plan: Plan, commands: dict[bytes, Clock | Close], title: Title) -> None:
        self._session = plan["session"]
        self._level = plan["log"]["level"]
        self._grace = plan["stop_timeout"]
        self._commands = commands
        self._title = title

    def serve_one(self, client: Admitted) -> None:
        """Serve the one client this process was forked for, and tell the master."""
        journal, lifeline = self._begin()
        self._serve(OWN, client, journal, lifeline)
        notices.send(NOTICES, notices.GONE, os.getpid(), journal.lost)

    def serve_many(self, clients: int) -> None:
        """Serve up to `clients` clients that come through the channel, then leave."""
        journal, lifeline = self._begin()
        channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, OWN)
        while clients and not lifeline.stopping:
            self._title.set("handler (waiting)")
            fd, client = _next_client(channel, lifeline)
            if client is None:
                break
            self._serve(fd, client, journal, lifeline)
            clients -= 1
            if clients:
                notices.send(NOTICES, notices.IDLE, os.getpid(), journal.take_lost())
        notices.send(NOTICES, notices.GONE, os.getpid(), journal.take_lost())

    def rehearse(self) -> None:
        """Serve a client that is not there, so that every child finds the code warm.

        What the interpreter learns about code while it runs (specialised instructions, cached
        attributes) is written into memory; learnt before the fork, it is not copied after it.
        """
        nowhere = os.open(os.devnull, os.O_WRONLY)
        hears, holds = os.pipe()
        journal = events.Journal(nowhere, self._level)
        client = Admitted("127.0.0.1:65535", "rehearsal", "unix", "command", "127.0.0.1:65000")
        for _ in range(_REHEARSALS):
            ours, theirs = _socket.socketpair()
            for piece in (*self._commands, b"?\n"):
                ours.send(piece)
            ours.shutdown(_socket.SHUT_WR)
            self._serve(theirs.detach(), client, journal, Lifeline(hears, self._grace))
            ours.close()
        for fd in (nowhere, hears, holds):
            os.close(fd)

    def _begin(self) -> tuple[events.Journal, Lifeline]:
        """Become a process of its own."""
        lifeline = Lifeline(LIFELINE, self._grace)
        spawn.accept_termination(lifeline.on_signal)
        return events.Journal(JOURNAL, self._level, events.ROOM_SECONDS), lifeline

    def _serve(
        self, fd: int, client: Admitted, journal: events.Journal, lifeline: Lifeline
    ) -> None:
        self._title.set(f"handler {client.client}")
        journal.set_context(client.fields())
        connected = _socket.socket(FAMILIES[client.family], _socket.SOCK_STREAM, 0, fd)
        session = Session(connected, self._session, lifeline, journal)
        session.serve(self._service(client.service))

    def _service(self, name: str) -> Service:
        return EchoService() if name == "echo" else CommandService(self._commands)


class Admitted:
    """A client that was let in, as its handler and its log lines know it."""

    __slots__ = ("client", "connection", "family", "listener", "service")

    def __init__(
        self, client: str, connection: str, family: str, service: str, listener: str
    ) -> None:
        self.client = client
        self.connection = connection
        self.family = family
        self.service = service
        self.listener = listener

    def pack(self) -> tuple[str, str, str, str, str]:
        """Return it as what the constructor takes, to be sent to a handler that waits."""
        return self.client, self.connection, self.family, self.service, self.listener

    def fields(self) -> dict[str, object]:
        """Return what every line about this client has."""
        return {
            "client": self.client,
            "connection": self.connection,
            "service": self.service,
            "listener": self.listener,
        }


def _next_client(channel: _socket.socket, lifeline: Lifeline) -> tuple[int, Admitted | None]:
    """Wait for a client; None when there will be none."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.register(lifeline.fd, select.POLLIN)
    ready = dict(lifeline.wait(poll, None))
    if lifeline.fd in ready or not ready:
        return -1, None
    data, rights, _, _ = channel.recvmsg(_LONGEST_CLIENT, _socket.CMSG_LEN(_FD_BYTES))
    if not rights:
        return -1, None
    return int.from_bytes(rights[0][2], sys.byteorder), Admitted(*marshal.loads(data))  # noqa: S302
