"""The handlers at work: forked, given clients, missed when they are lost, and let go.

A client gets a handler of its own, forked for it; or, where handlers are kept waiting or serve
several, one that waits and is passed the client's socket. One that is done says so; one whose end
comes without a word is lost.
"""

from __future__ import annotations

import _socket
import errno
import marshal
import os
import sys
import time

from tetrad import events, notices, spawn
from tetrad.children import Child, Children
from tetrad.descriptors import JOURNAL, LIFELINE, NOTICES, NOTICES_HEARD
from tetrad.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.admission import Admission, Source
    from tetrad.handler import Admitted, Handler
    from tetrad.loop import Loop

SURPLUS_SECONDS = 10.0
"""How long more handlers wait for clients than `spare` asks for."""

NO_SPARES_SECONDS = 1.0
"""How long no spare is forked after one could not be, or was lost."""

RECHECK_SECONDS = 0.5
"""How often a handler that could not be watched is tried again."""


class Crew:
    """All handlers, and who among them has which client."""

    def __init__(self, loop: Loop, journal: events.Journal, admission: Admission) -> None:
        self._loop = loop
        self._journal = journal
        self._admission = admission
        self._children = Children()
        self._spare = 0
        self._clients_each = 1
        self.lost = 0
        loop.watch(NOTICES_HEARD, self._hear)

    def configure(self, handler: Handler, spare: int, clients_each: int) -> None:
        """Serve new clients like this; those who have a client finish as they began."""
        self._handler = handler
        self._spare = spare
        self._clients_each = clients_each
        self.retire()

    def __len__(self) -> int:
        """How many handlers there are."""
        return len(self._children)

    def __iter__(self) -> Iterator[Child]:
        """All handlers, those that wait among them."""
        return iter(self._children)

    @property
    def idle(self) -> int:
        """How many handlers wait for a client."""
        return self._children.idle

    @property
    def wants_spare(self) -> bool:
        """Whether fewer handlers wait than should."""
        return self._children.idle < self._spare and "spares" not in self._loop.timers

    def serve(self, fd: int, client: Admitted, address: Source | None) -> None:
        """Give a client that was let in to a handler. Raises OSError if there can be none."""
        child = self._children.wake()
        while child is not None and not _hand_over(child, fd, client):
            child = self._children.wake()
        if child is None:
            child = self._hire_for(fd, client)
        child.take(client, address, time.monotonic())
        self._admission.enter(address)
        self._track(child)

    def hire_spare(self) -> None:
        """Fork a handler ahead of its client."""
        try:
            child = self._hire()
        except OSError:
            self._rest_from_hiring()
            return
        self._children.register(child)
        self._children.rest(child)
        self._track(child)

    def retire(self) -> None:
        """Let go the handlers that wait for clients, and those that would come to."""
        for child in self._children:
            _release(child)
        while self._children.wake():
            pass

    def dismiss(self, child: Child) -> None:
        """Ask one handler to end its session."""
        _kill(child, signal.SIGTERM)

    def kill(self) -> None:
        """End all handlers that are left, now."""
        for child in self._children:
            _kill(child, signal.SIGKILL)

    def _hire_for(self, fd: int, client: Admitted) -> Child:
        if self._clients_each > 1:
            child = self._hire()
            if not _hand_over(child, fd, client):
                _release(child)
                raise OSError(errno.EAGAIN, "a new handler could not be passed its client")
        else:
            handler = self._handler
            pid = self._fork(lambda: handler.serve_one(client), fd)
            child = Child(pid, None)
        self._children.register(child)
        return child

    def _hire(self) -> Child:
        """Fork a handler that gets its clients through a channel."""
        ours, theirs = _pair()
        handler, clients = self._handler, self._clients_each
        try:
            pid = self._fork(lambda: handler.serve_many(clients), theirs.fileno())
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return Child(pid, ours)

    def _fork(self, work: spawn.Work, fd: int) -> int:
        return spawn.fork(work, (JOURNAL, NOTICES, LIFELINE, fd), max(self._loop.highest, fd))

    def _track(self, child: Child) -> None:
        """Watch for a handler's end. One that ended at once was reaped before we could ask."""
        if child.pidfd is not None:
            return
        try:
            child.pidfd = os.pidfd_open(child.pid)
        except ProcessLookupError:
            self._hear(NOTICES_HEARD)
            if self._children.by_pid(child.pid) is child:
                self._lose(child)
        except OSError:
            when = time.monotonic() + RECHECK_SECONDS
            self._loop.timers.set("recheck", when, self._recheck)
        else:
            self._children.track(child)
            self._loop.watch(child.pidfd, self._on_end)

    def _recheck(self) -> None:
        for child in self._children:
            self._track(child)

    def _hear(self, fd: int) -> None:
        """Listen to what handlers say."""
        for pid, kind, lost in notices.receive(fd):
            self._journal.count_lost(lost)
            child = self._children.by_pid(pid)
            if child is None:
                continue
            self._end_client(child)
            if kind == notices.GONE:
                self._forget(child)
            elif child.channel is not None:
                self._children.rest(child)
                self._trim_later()

    def _on_end(self, pidfd: int) -> None:
        """A handler's process has ended; if it said so before, there is nothing left to do."""
        self._hear(NOTICES_HEARD)
        child = self._children.by_pidfd(pidfd)
        if child is not None:
            self._lose(child)

    def _lose(self, child: Child) -> None:
        self.lost += 1
        fields = {} if child.client is None else child.client.fields()
        age = round(time.monotonic() - child.since, 6) if child.client else None
        self._journal.event(
            "error",
            events.HANDLER_LOST,
            handler=child.pid,
            why="it ended without a word: killed, or out of memory",
            duration=age,
            **fields,
        )
        if child.client is None:
            self._rest_from_hiring()
        self._end_client(child)
        self._forget(child)

    def _rest_from_hiring(self) -> None:
        """Want no spare for a while: there is no room for one, or they die as they come."""
        when = time.monotonic() + NO_SPARES_SECONDS
        self._loop.timers.set("spares", when, lambda: None)

    def _end_client(self, child: Child) -> None:
        if child.client is not None:
            self._admission.leave(child.address)
            child.client = None

    def _forget(self, child: Child) -> None:
        self._children.forget(child)
        _release(child)
        if child.pidfd is not None:
            self._loop.unwatch(child.pidfd)
            os.close(child.pidfd)

    def _trim_later(self) -> None:
        if self._children.idle > self._spare and "trim" not in self._loop.timers:
            self._loop.timers.set("trim", time.monotonic() + SURPLUS_SECONDS, self._trim)

    def _trim(self) -> None:
        """Let go those of the waiting handlers that are more than `spare` asks for."""
        while self._children.idle > self._spare:
            child = self._children.idlest()
            if child is not None:
                _release(child)


def _pair() -> tuple[_socket.socket, _socket.socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def _hand_over(child: Child, fd: int, client: Admitted) -> bool:
    """Pass a client to a handler that waits; False if it has gone meanwhile."""
    if child.channel is None:
        return False
    descriptor = fd.to_bytes(4, sys.byteorder)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)]
    try:
        child.channel.sendmsg([marshal.dumps(client.pack())], rights, _socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def _release(child: Child) -> None:
    """Close a handler's channel: it leaves as soon as it has no client."""
    if child.channel is not None:
        child.channel.close()
        child.channel = None


def _kill(child: Child, number: int) -> None:
    if child.pidfd is not None:
        try:
            signal.pidfd_send_signal(child.pidfd, number)
        except ProcessLookupError:
            pass  # it is gone already, and its notice is on the way
