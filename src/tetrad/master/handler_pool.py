"""The handlers at work: forked, given clients, missed when they are lost, and let go.

A client gets a handler of its own, forked for it; or, where handlers are kept waiting or serve
several, one that waits and is passed the client's socket. One that is done says so; one whose end
comes without a word is lost.
"""

from __future__ import annotations

import errno
from time import monotonic

from tetrad.ipc import fd_passing, log_protocol
from tetrad.ipc.exit_notices import GONE, receive, record
from tetrad.ipc.fds import NOTICES_READ
from tetrad.master.connections import address_of
from tetrad.master.handler_table import HandlerProcess, HandlerTable
from tetrad.system import fork
from tetrad.system.fork import fork_each
from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator

    from tetrad.handler.process import Handler
    from tetrad.master.admission import Admission
    from tetrad.master.connections import Client
    from tetrad.system.event_loop import EventLoop

    Arrival = tuple[_socket.socket, Client]
    """A client that was let in, and its socket."""

CHECK_SECONDS = 0.05
"""How often it is looked whether handlers are still there."""

CHECKED_AT_ONCE = 1024
"""How many handlers are looked after at a time: what that takes, clients wait."""

DISMISSED_AGAIN_SECONDS = 1.0
"""How soon who is to leave is asked to once more."""

SURPLUS_SECONDS = 10.0
"""How long more handlers wait for clients than `spare` asks for."""

NO_SPARES_SECONDS = 1.0
"""How long no spare is forked after one could not be, or was lost."""


class HandlerPool:
    """All handlers, and who among them has which client."""

    def __init__(self, loop: EventLoop, journal: log_protocol.LogWriter, admission: Admission) -> None:
        self._loop = loop
        self._journal = journal
        self._admission = admission
        self._children = HandlerTable()
        self.spare = 0
        self._clients_each = 1
        self._is_watching = False
        self.hired = 0
        self.lost = 0
        loop.watch(NOTICES_READ, self._hear)

    def configure(self, handler: Handler, spare: int, clients_each: int) -> None:
        """Serve new clients like this; those who have a client finish as they began."""
        self._handler = handler
        self.spare = spare
        self._clients_each = clients_each
        self.retire()

    def __len__(self) -> int:
        """How many handlers there are."""
        return len(self._children)

    def __iter__(self) -> Iterator[HandlerProcess]:
        """All handlers, those that wait among them."""
        return iter(self._children)

    @property
    def idle(self) -> int:
        """How many handlers wait for a client."""
        return self._children.idle

    @property
    def wants_spare(self) -> bool:
        """Whether fewer handlers wait than should."""
        return self._children.idle < self.spare and "spares" not in self._loop.timers

    def serve(self, arrivals: list[Arrival]) -> tuple[int, OSError | None]:
        """Give clients that were let in to handlers: those that wait, then new ones.

        Returns how many got one, and why the next did not.
        """
        self._handler.refresh()
        given, error = 0, None
        if self._children.waiting:
            while given < len(arrivals) and self._give(*arrivals[given]):
                given += 1
            arrivals = arrivals[given:]
        if arrivals:
            hire = self._hire_each if self._clients_each > 1 else self._fork_each
            hired, error = hire(arrivals)
            given += hired
        if not self._is_watching:
            self._check_later()
        return given, error

    def adopt(self, child: HandlerProcess) -> None:
        """Count a handler of the version before, and its client, as ours; it keeps its number."""
        self._children.register(child)
        if child.kept is not None:
            self._admission.enter(address_of(child.kept))
        self._check_later()

    def hire_spare(self) -> None:
        """Fork a handler ahead of its client."""
        try:
            self._children.rest(self._hire())
        except OSError:
            self._rest_from_hiring()
        self._check_later()

    def retire(self) -> None:
        """Let go the handlers that wait for clients, and those that would come to."""
        for child in self._children:
            _release(child)
        while self._children.wake():
            pass

    def dismiss_denied(self) -> None:
        """Ask those to leave whom the access lists would not let in any more, until they have.

        A signal that comes right before a handler falls asleep does not wake it.
        """
        allows = self._admission.allows
        there = [(child, child.kept) for child in self._children]
        denied = [
            child for child, kept in there if kept is not None and not allows(address_of(kept))
        ]
        for child in denied:
            fork.send_signal(child.pid, signal.SIGTERM)
        if denied:
            when = monotonic() + DISMISSED_AGAIN_SECONDS
            self._loop.timers.set("denied", when, self.dismiss_denied)

    def kill(self) -> None:
        """End all handlers that are left, now."""
        for child in self._children:
            fork.send_signal(child.pid, signal.SIGKILL)

    def _give(self, socket: _socket.socket, client: Client) -> bool:
        """Give a client to a handler that waits; False if none is left."""
        while child := self._children.wake():
            channel = child.channel
            if channel is not None and fd_passing.give(channel, socket, client.pack()):
                child.take(client, monotonic())
                return True
            _release(child)
        return False

    def _fork_each(self, arrivals: list[Arrival]) -> tuple[int, OSError | None]:
        """Give each client a handler of its own.

        They are forked in a row, with nothing between the forks: each page that is written there
        has to be copied once more.
        """
        first, self.hired = self.hired + 1, self.hired + len(arrivals)
        servers, jobs, kept, number = self._handler.servers, [], [], first
        for socket, client in arrivals:
            words = socket, client.pack(), record(GONE, number)
            jobs.append((socket.fileno(), servers[client.place], words))
            kept.append(client.dump())
            number += 1
        pids, error = fork_each(jobs, self._loop.highest)
        now, number = monotonic(), first
        for pid in pids:
            self._children.register(HandlerProcess(number, pid, None, kept[number - first], now))
            number += 1
        return len(pids), error

    def _hire_each(self, arrivals: list[Arrival]) -> tuple[int, OSError | None]:
        """Give each client a handler that will serve others after it."""
        hired = 0
        try:
            for socket, client in arrivals:
                self._children.rest(self._hire())
                if not self._give(socket, client):
                    break
                hired += 1
        except OSError as error:
            return hired, error
        if hired < len(arrivals):
            return hired, OSError(errno.EAGAIN, "a new handler could not be passed its client")
        return hired, None

    def _hire(self) -> HandlerProcess:
        """Fork a handler that gets its clients through a channel. Raises OSError."""
        self.hired += 1
        ours, theirs = fd_passing.channel()
        self._loop.saw(max(ours.fileno(), theirs.fileno()))
        arguments = theirs, self._clients_each, self.hired
        job = theirs.fileno(), self._handler.serve_many, arguments
        pids, error = fork_each([job], self._loop.highest)
        theirs.close()
        if error is not None:
            ours.close()
            raise error
        child = HandlerProcess(self.hired, pids[0], ours)
        self._children.register(child)
        return child

    def _check_later(self) -> None:
        if not self._is_watching and len(self._children):
            self._is_watching = True
            self._loop.timers.set("check", monotonic() + CHECK_SECONDS, self.check)

    def check(self) -> None:
        """Look for handlers that are gone.

        Descriptors that tell of their ends would tell at once; but every fork copies all that the
        master has open, and with thousands of clients that is most of what a fork takes.
        """
        self._is_watching = False
        gone = self._children.next_to_check(CHECKED_AT_ONCE)
        gone = [child for child in gone if fork.has_ended(child.pid)]
        if gone:
            self._hear(NOTICES_READ)
        for child in gone:
            if self._children.find(child.number) is child:
                self._lose(child)
        self._check_later()

    def _hear(self, fd: int) -> None:
        """Listen to what handlers say."""
        for number, kind, lost in receive(fd):
            if lost:
                self._journal.count_lost(lost)
            child = self._children.find(number)
            if child is None:
                continue
            self._end_client(child)
            if kind == GONE:
                self._forget(child)
            elif child.channel is not None:
                self._children.rest(child)
                self._trim_later()

    def _lose(self, child: HandlerProcess) -> None:
        """A handler has ended without a word."""
        self.lost += 1
        client = child.client
        fields = {} if client is None else client.fields()
        age = round(monotonic() - child.since, 6) if client else None
        self._journal.event(
            "error",
            log_protocol.HANDLER_LOST,
            handler=child.pid,
            why="it ended without a word: killed, out of memory, or failed",
            duration=age,
            **fields,
        )
        if client is None:
            self._rest_from_hiring()
        self._end_client(child)
        self._forget(child)

    def _rest_from_hiring(self) -> None:
        """Want no spare for a while: there is no room for one, or they die as they come."""
        when = monotonic() + NO_SPARES_SECONDS
        self._loop.timers.set("spares", when, lambda: None)

    def _end_client(self, child: HandlerProcess) -> None:
        if child.kept is not None:
            self._admission.leave(address_of(child.kept))
            child.kept = None

    def _forget(self, child: HandlerProcess) -> None:
        self._children.forget(child)
        _release(child)

    def _trim_later(self) -> None:
        if self._children.idle > self.spare and "trim" not in self._loop.timers:
            self._loop.timers.set("trim", monotonic() + SURPLUS_SECONDS, self._trim)

    def _trim(self) -> None:
        """Let go those of the waiting handlers that are more than `spare` asks for."""
        while self._children.idle > self.spare:
            child = self._children.idlest()
            if child is not None:
                _release(child)


def _release(child: HandlerProcess) -> None:
    """Close a handler's channel: it leaves as soon as it has no client."""
    if child.channel is not None:
        child.channel.close()
        child.channel = None
