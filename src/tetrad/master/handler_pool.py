"""The handlers at work: forked, given clients, missed when they are lost, and let go.

A client gets a handler of its own, forked for it; or, where handlers are kept waiting or serve
several, one that waits and is passed the client's socket. One that is done says so; one whose end
comes without a word is lost.
"""

from __future__ import annotations

import errno
from time import monotonic

from tetrad.ipc import fd_passing, log_protocol
from tetrad.ipc.exit_notices import EXITING, make_notice, read_notices
from tetrad.ipc.fds import FIRST_MASTER_FD, NOTICES_READ
from tetrad.ipc.log_protocol import log_handler_failure
from tetrad.master.connections import packed_address
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

CHECKED_PER_TURN = 1024
"""How many handlers are looked after at a time: what that takes, clients wait."""

TERMINATE_RETRY_SECONDS = 1.0
"""How soon who is to leave is asked to once more."""

SURPLUS_IDLE_SECONDS = 10.0
"""How long more handlers wait for clients than `spare` asks for."""

SPARE_RETRY_SECONDS = 1.0
"""How long no spare is forked after one could not be, or was lost."""


class HandlerPool:
    """All handlers, and who among them has which client."""

    def __init__(self, loop: EventLoop, log: log_protocol.LogWriter, admission: Admission) -> None:
        self._loop = loop
        self._log = log
        self._admission = admission
        self._table = HandlerTable()
        self.spare = 0
        self._clients_each = 1
        self._check_is_scheduled = False
        self.forked = 0
        self.lost = 0
        loop.watch(NOTICES_READ, self._read_notices)

    def configure(self, handler: Handler, spare: int, clients_each: int) -> None:
        """Serve new clients like this; those who have a client finish as they began."""
        self._handler = handler
        self.spare = spare
        self._clients_each = clients_each
        self.drain_idle()

    def __len__(self) -> int:
        """How many handlers there are."""
        return len(self._table)

    def __iter__(self) -> Iterator[HandlerProcess]:
        """All handlers, those that wait among them."""
        return iter(self._table)

    @property
    def idle(self) -> int:
        """How many handlers wait for a client."""
        return self._table.idle

    @property
    def needs_spare(self) -> bool:
        """Whether fewer handlers wait than should."""
        return self._table.idle < self.spare and "spares" not in self._loop.timers

    def serve(self, arrivals: list[Arrival]) -> tuple[int, OSError | None]:
        """Give clients that were let in to handlers: those that wait, then new ones.

        Returns how many got one, and why the next did not.
        """
        self._handler.refresh()
        given, error = 0, None
        if self._table.waiting:
            while given < len(arrivals) and self._hand_off(*arrivals[given]):
                given += 1
            arrivals = arrivals[given:]
        if arrivals:
            hire = self._fork_reusable_each if self._clients_each > 1 else self._fork_each
            hired, error = hire(arrivals)
            given += hired
        if not self._check_is_scheduled:
            self._schedule_check()
        return given, error

    def restore_handler(self, child: HandlerProcess) -> None:
        """Count a handler of the version before, and its client, as ours; it keeps its number."""
        self._table.add(child)
        if child.packed_client is not None:
            self._admission.add_client(packed_address(child.packed_client))
        self._schedule_check()

    def fork_spare(self) -> None:
        """Fork a handler ahead of its client."""
        try:
            self._table.mark_idle(self._fork_reusable())
        except OSError:
            self._pause_spares()
        self._schedule_check()

    def drain_idle(self) -> None:
        """Let go the handlers that wait for clients, and those that would come to."""
        for child in self._table:
            _close_channel(child)
        while self._table.pop_idle():
            pass

    def terminate_denied(self) -> None:
        """Ask those to leave whom the access lists would not let in any more, until they have.

        A signal that comes right before a handler falls asleep does not wake it.
        """
        allows = self._admission.allows
        there = [(child, child.packed_client) for child in self._table]
        denied = [
            child for child, kept in there if kept is not None and not allows(packed_address(kept))
        ]
        for child in denied:
            fork.send_signal(child.pid, signal.SIGTERM)
        if denied:
            when = monotonic() + TERMINATE_RETRY_SECONDS
            self._loop.timers.set("denied", when, self.terminate_denied)

    def kill(self) -> None:
        """End all handlers that are left, now."""
        for child in self._table:
            fork.send_signal(child.pid, signal.SIGKILL)

    def _hand_off(self, socket: _socket.socket, client: Client) -> bool:
        """Give a client to a handler that waits; False if none is left."""
        while child := self._table.pop_idle():
            channel = child.channel
            if channel is not None and fd_passing.send_client(channel, socket, client.handoff()):
                child.assign(client, monotonic())
                return True
            _close_channel(child)
        return False

    def _fork_each(self, arrivals: list[Arrival]) -> tuple[int, OSError | None]:
        """Give each client a handler of its own.

        They are forked in a row, with nothing between the forks: each page that is written there
        has to be copied once more.
        """
        first, self.forked = self.forked + 1, self.forked + len(arrivals)
        servers, jobs, kept, number = self._handler.servers, [], [], first
        for socket, client in arrivals:
            words = socket, client.handoff(), make_notice(EXITING, number)
            jobs.append((socket.fileno(), servers[client.listener_index], words))
            kept.append(client.pack())
            number += 1
        pids, error = fork_each(jobs, FIRST_MASTER_FD, self._loop.highest_fd, log_handler_failure)
        now, number = monotonic(), first
        for pid in pids:
            self._table.add(HandlerProcess(number, pid, None, kept[number - first], now))
            number += 1
        return len(pids), error

    def _fork_reusable_each(self, arrivals: list[Arrival]) -> tuple[int, OSError | None]:
        """Give each client a handler that will serve others after it."""
        hired = 0
        try:
            for socket, client in arrivals:
                self._table.mark_idle(self._fork_reusable())
                if not self._hand_off(socket, client):
                    break
                hired += 1
        except OSError as error:
            return hired, error
        if hired < len(arrivals):
            return hired, OSError(errno.EAGAIN, "a new handler could not be passed its client")
        return hired, None

    def _fork_reusable(self) -> HandlerProcess:
        """Fork a handler that gets its clients through a channel. Raises OSError."""
        self.forked += 1
        ours, theirs = fd_passing.open_channel()
        self._loop.track_fd(max(ours.fileno(), theirs.fileno()))
        arguments = theirs, self._clients_each, self.forked
        job = theirs.fileno(), self._handler.serve_many, arguments
        pids, error = fork_each([job], FIRST_MASTER_FD, self._loop.highest_fd, log_handler_failure)
        theirs.close()
        if error is not None:
            ours.close()
            raise error
        child = HandlerProcess(self.forked, pids[0], ours)
        self._table.add(child)
        return child

    def _schedule_check(self) -> None:
        if not self._check_is_scheduled and len(self._table):
            self._check_is_scheduled = True
            self._loop.timers.set("check", monotonic() + CHECK_SECONDS, self.check_alive)

    def check_alive(self) -> None:
        """Look for handlers that are gone.

        Descriptors that tell of their ends would tell at once; but every fork copies all that the
        master has open, and with thousands of clients that is most of what a fork takes.
        """
        self._check_is_scheduled = False
        gone = self._table.next_to_check(CHECKED_PER_TURN)
        gone = [child for child in gone if fork.has_ended(child.pid)]
        if gone:
            self._read_notices(NOTICES_READ)
        for child in gone:
            if self._table.find(child.number) is child:
                self._handle_crash(child)
        self._schedule_check()

    def _read_notices(self, fd: int) -> None:
        """Listen to what handlers say."""
        for number, kind, lost in read_notices(fd):
            if lost:
                self._log.count_lost(lost)
            child = self._table.find(number)
            if child is None:
                continue
            self._remove_client(child)
            if kind == EXITING:
                self._remove(child)
            elif child.channel is not None:
                self._table.mark_idle(child)
                self._schedule_trim()

    def _handle_crash(self, child: HandlerProcess) -> None:
        """A handler has ended without a word."""
        self.lost += 1
        client = child.client
        fields = {} if client is None else client.fields()
        age = round(monotonic() - child.since, 6) if client else None
        self._log.event(
            "error",
            log_protocol.HANDLER_LOST,
            handler=child.pid,
            why="it ended without a word: killed, out of memory, or failed",
            duration=age,
            **fields,
        )
        if client is None:
            self._pause_spares()
        self._remove_client(child)
        self._remove(child)

    def _pause_spares(self) -> None:
        """Want no spare for a while: there is no room for one, or they die as they come."""
        when = monotonic() + SPARE_RETRY_SECONDS
        self._loop.timers.set("spares", when, lambda: None)

    def _remove_client(self, child: HandlerProcess) -> None:
        if child.packed_client is not None:
            self._admission.remove_client(packed_address(child.packed_client))
            child.packed_client = None

    def _remove(self, child: HandlerProcess) -> None:
        self._table.remove(child)
        _close_channel(child)

    def _schedule_trim(self) -> None:
        if self._table.idle > self.spare and "trim" not in self._loop.timers:
            self._loop.timers.set("trim", monotonic() + SURPLUS_IDLE_SECONDS, self._stop_surplus)

    def _stop_surplus(self) -> None:
        """Let go those of the waiting handlers that are more than `spare` asks for."""
        while self._table.idle > self.spare:
            child = self._table.pop_longest_idle()
            if child is not None:
                _close_channel(child)


def _close_channel(child: HandlerProcess) -> None:
    """Close a handler's channel: it leaves as soon as it has no client."""
    if child.channel is not None:
        child.channel.close()
        child.channel = None
