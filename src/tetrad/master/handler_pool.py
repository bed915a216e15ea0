"""The handler pool: forks handlers, passes clients to them, and notices when they exit or crash.

A client gets a handler of its own, forked for it; or, with spare or reusable handlers, one that
waits and receives the client's socket. A handler that exits normally sends an exit notice first; a
handler that exits without a notice has crashed.
"""

from __future__ import annotations

import errno
from os import urandom
from time import monotonic

from tetrad.ipc import fd_passing, log_protocol
from tetrad.ipc.exit_notices import (
    CERTIFICATE,
    EXITING,
    IDLE,
    INVALID,
    REJECTED,
    make_notice,
    read_notices,
)
from tetrad.ipc.fds import FIRST_MASTER_FD, NOTICES_READ
from tetrad.ipc.log_protocol import log_child_failure
from tetrad.ipc.shutdown_pipe import DENIED, GIVE_WAY
from tetrad.master.connections import Client, packed_address
from tetrad.master.handler_table import HandlerProcess, HandlerTable
from tetrad.system import fork
from tetrad.system.fork import fork_each
from tetrad.system.lean_signal import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator

    from tetrad.handler.process import Handler
    from tetrad.ipc.saved_state import HandlerPoolState
    from tetrad.master.admission import Admission
    from tetrad.master.session_rules import SessionRules
    from tetrad.system.event_loop import EventLoop

    Admitted = tuple[_socket.socket, Client]
    """A client that was admitted, and its socket."""

CHECK_SECONDS = 0.05
"""The interval in which the pool looks for handlers that have crashed, while clients come."""

REST_SECONDS = 1.0
"""The same while no client comes: a place that nobody asks for need not be free at once."""

CHECKS_TO_REST = 20
"""How many times the pool looks in the short interval after a client has come."""

CHECKED_PER_TURN = 1024
"""How many handlers are checked at a time: new clients wait for that."""

TERMINATE_RETRY_SECONDS = 1.0
"""The interval in which handlers whose clients are denied now are sent signals again."""

FIRST_COMMAND_SECONDS = 1.0
"""How long a new client cannot be asked to give way."""

SURPLUS_IDLE_SECONDS = 10.0
"""How long more handlers wait for clients than `handlers.spare` asks for."""

SPARE_RETRY_SECONDS = 1.0
"""How long no spare handler is forked after a fork failed or a spare handler crashed."""

INVALID_NOTICES_SECONDS = 1.0
"""How long invalid exit notices are counted before their number is logged."""

_RANDOM_BYTES = 4

_REASONS = {kind: reason for reason, kind in REJECTED.items()}


class HandlerPool:
    """All handlers and their clients; `forked` is the number of the last handler.

    `rejected` counts the sessions that TLS, the subject of a certificate or an access list has
    ended, by reason.
    """

    def __init__(
        self,
        loop: EventLoop,
        log: log_protocol.LogWriter,
        admission: Admission,
        rules: SessionRules,
    ) -> None:
        self._loop = loop
        self._log = log
        self._admission = admission
        self._rules = rules
        self._certificates: dict[int, bytes] = {}
        self._table = HandlerTable()
        self.spare = 0
        self._clients_each = 1
        self._frequent_checks = 0
        self.forked = 0
        self.lost = 0
        self._invalid_notices = 0
        self.rejected = dict.fromkeys(REJECTED, 0)
        loop.watch(NOTICES_READ, self._read_notices)

    def configure(self, handler: Handler, spare: int, clients_each: int) -> None:
        """Serve new clients with `handler`; sessions that run finish as they began."""
        self._handler = handler
        self.spare = spare
        self._clients_each = clients_each
        self.drain_idle()

    def save_state(self) -> HandlerPoolState:
        """Return the state for the next version."""
        return {
            "forked": self.forked,
            "lost": self.lost,
            "rejected": self.rejected,
            "certificates": self._certificates,
            "handlers": [
                (one.number, one.pid, one.since, None if client is None else client.save_state())
                for one, client in ((one, one.client) for one in self)
            ],
        }

    def restore_state(self, state: HandlerPoolState) -> None:
        """Take over the handlers of the version before, and their clients, with their numbers."""
        self.forked, self.lost = state["forked"], state["lost"]
        self.rejected |= state.get("rejected", {})
        self._certificates = state.get("certificates", {})
        for number, pid, since, client_state in state["handlers"]:
            handler = HandlerProcess(number, pid, None)
            self._table.add(handler)
            if client_state is not None:
                client = Client.restore_state(client_state)
                handler.assign(client, since)
                self._admission.add_client(client.address)
        self.check_often()

    def __len__(self) -> int:
        """Return the number of handlers."""
        return len(self._table)

    def __iter__(self) -> Iterator[HandlerProcess]:
        """Iterate over all handlers, idle ones included."""
        return iter(self._table)

    @property
    def idle(self) -> int:
        """The number of handlers that wait for a client."""
        return self._table.idle

    @property
    def needs_spare(self) -> bool:
        """Whether fewer handlers wait than `handlers.spare` asks for."""
        return self._table.idle < self.spare and "spares" not in self._loop.timers

    def serve(self, admitted: list[Admitted]) -> tuple[int, OSError | None]:
        """Pass clients to handlers that wait, then to new ones.

        Returns how many clients got a handler, and the error that kept the next one from it.
        """
        self._handler.refresh_answers()
        served, error = 0, None
        if self._table.waiting:
            while served < len(admitted) and self._hand_off(*admitted[served]):
                served += 1
            admitted = admitted[served:]
        if admitted:
            fork_all = self._fork_reusable_each if self._clients_each > 1 else self._fork_each
            forked, error = fork_all(admitted)
            served += forked
        if self._frequent_checks < CHECKS_TO_REST:
            self.check_often()
        return served, error

    def fork_spare(self) -> None:
        """Fork a handler ahead of its client."""
        try:
            self._table.mark_idle(self._fork_reusable())
        except OSError:
            self._pause_spares()
        self.check_often()

    def drain_idle(self) -> None:
        """Have the handlers that wait for clients exit, and reusable ones after their session."""
        for handler in self._table:
            _close_channel(handler)
        while self._table.pop_idle():
            pass
        self.check_often()

    def terminate_denied(self, numbers: tuple[int, ...] = (DENIED,)) -> None:
        """Send DENIED to the handlers whose clients are not let in any more.

        Repeated until they exit, because a signal just before a handler starts to wait does not end
        the wait; then with SIGTERM, because a handler of the version before may not know DENIED.
        """
        self._read_notices(NOTICES_READ)  # the latest certificates
        allows, certificates = self._rules.allows, self._certificates
        pids = [one.pid for one in self._table if not allows(one, certificates.get(one.number))]
        if pids:
            for number in numbers:
                fork.send_signal(pids, number)
            when = monotonic() + TERMINATE_RETRY_SECONDS
            again = DENIED, signal.SIGTERM
            self._loop.timers.set("denied", when, lambda: self.terminate_denied(again))

    def make_room(self, count: int) -> None:
        """Ask clients at random, twice `count`, to give way unless they have sent a command."""
        latest = monotonic() - FIRST_COMMAND_SECONDS
        numbers = [int.from_bytes(urandom(_RANDOM_BYTES), "big") for _ in range(2 * count)]
        drawn = [handler for handler in map(self._table.draw, numbers) if handler is not None]
        asked = [one.pid for one in drawn if one.packed_client and one.since <= latest]
        fork.send_signal(asked, GIVE_WAY)

    def kill(self) -> None:
        """Send SIGKILL to all handlers that are left."""
        fork.send_signal([handler.pid for handler in self._table], signal.SIGKILL)
        self.check_often()

    def check_alive(self) -> None:
        """Look for handlers that have crashed.

        A pidfd of each handler would report its exit at once; but every fork copies all descriptors
        of the master, and with thousands of clients that is most of what a fork costs.
        """
        ended = self._table.next_to_check(CHECKED_PER_TURN)
        ended = [handler for handler in ended if fork.has_exited(handler.pid)]
        if ended:
            self._read_notices(NOTICES_READ)
        for handler in ended:
            if self._table.find(handler.number) is handler:
                self._handle_crash(handler)
        self._frequent_checks = max(0, self._frequent_checks - 1)
        self._schedule_check()

    def check_often(self) -> None:
        """Look for handlers that have crashed in the short interval for a while: clients come."""
        is_at_rest = not self._frequent_checks
        self._frequent_checks = CHECKS_TO_REST
        if is_at_rest:
            self._schedule_check()

    def _hand_off(self, socket: _socket.socket, client: Client) -> bool:
        """Pass a client to a handler that waits; False if none waits."""
        while handler := self._table.pop_idle():
            channel = handler.channel
            if channel is not None and fd_passing.send_client(channel, socket, client.handoff()):
                handler.assign(client, monotonic())
                return True
            _close_channel(handler)
        return False

    def _fork_each(self, admitted: list[Admitted]) -> tuple[int, OSError | None]:
        """Fork a handler for each client.

        The forks come in a row, with nothing between them: each page that is written between two
        forks is copied once more.
        """
        first, self.forked = self.forked + 1, self.forked + len(admitted)
        functions, jobs, packed, number = self._handler.serve_functions, [], [], first
        for socket, client in admitted:
            arguments = socket, client.handoff(), make_notice(EXITING, number)
            jobs.append((socket.fileno(), functions[client.listener_index], arguments))
            packed.append(client.pack())
            number += 1
        pids, error = fork_each(jobs, FIRST_MASTER_FD, self._loop.highest_fd, log_child_failure)
        now, number = monotonic(), first
        for pid in pids:
            self._table.add(HandlerProcess(number, pid, None, packed[number - first], now))
            number += 1
        return len(pids), error

    def _fork_reusable_each(self, admitted: list[Admitted]) -> tuple[int, OSError | None]:
        """Fork a handler for each client that will serve other clients after it."""
        served = 0
        try:
            for first in admitted:
                self._fork_reusable(first)
                served += 1
        except OSError as error:
            return served, error
        return served, None

    def _fork_reusable(self, first: Admitted | None = None) -> HandlerProcess:
        """Fork a handler that receives its clients through a channel. Raises OSError.

        The `first` client is in the channel before the fork: at a stop, the handler takes no other.
        """
        self.forked += 1
        ours, theirs = fd_passing.open_channel()
        self._loop.track_fd(max(ours.fileno(), theirs.fileno()))
        arguments = theirs, self._clients_each, self.forked
        job = theirs.fileno(), self._handler.serve_many, arguments
        pids: list[int] = []
        error: OSError | None = None
        if first is not None and not fd_passing.send_client(ours, first[0], first[1].handoff()):
            error = OSError(errno.EAGAIN, "a client cannot be passed to a new handler")
        else:
            close_to = self._loop.highest_fd
            pids, error = fork_each([job], FIRST_MASTER_FD, close_to, log_child_failure)
        theirs.close()
        if error is not None:
            ours.close()
            raise error
        handler = HandlerProcess(self.forked, pids[0], ours)
        if first is not None:
            handler.assign(first[1], monotonic())
        self._table.add(handler)
        return handler

    def _schedule_check(self) -> None:
        if len(self._table):
            seconds = CHECK_SECONDS if self._frequent_checks else REST_SECONDS
            self._loop.timers.set("check", monotonic() + seconds, self.check_alive)
        else:
            self._frequent_checks = 0

    def _read_notices(self, fd: int) -> None:
        """Read the exit notices that handlers have sent."""
        for number, kind, lost in read_notices(fd):
            if lost:
                self._log.count_lost(lost)
            handler = self._table.find(number)
            if handler is None:
                if kind == INVALID:
                    self._count_invalid_notice()
                continue
            if kind == EXITING:
                self._remove_client(handler)
                self._remove(handler)
            elif kind == IDLE:
                self._remove_client(handler)
                if handler.channel is not None:
                    self._table.mark_idle(handler)
                    self._schedule_trim()
            elif kind.startswith(CERTIFICATE):
                self._certificates[number] = kind.removeprefix(CERTIFICATE)
            else:
                self.rejected[_REASONS[kind]] += 1

    def _count_invalid_notice(self) -> None:
        self._invalid_notices += 1
        if self._invalid_notices == 1:
            when = monotonic() + INVALID_NOTICES_SECONDS
            self._loop.timers.set("invalid notices", when, self._log_invalid_notices)

    def _log_invalid_notices(self) -> None:
        count, self._invalid_notices = self._invalid_notices, 0
        self._log.event("error", log_protocol.HANDLER_NOTICE_INVALID, count=count)

    def _handle_crash(self, handler: HandlerProcess) -> None:
        """Log a handler that has exited without a notice, and remove it."""
        self.lost += 1
        client = handler.client
        fields = {} if client is None else client.fields()
        age = round(monotonic() - handler.since, 6) if client else None
        self._log.event(
            "error",
            log_protocol.HANDLER_LOST,
            handler=handler.pid,
            why="handler exited unexpectedly (signal, out of memory, or crash)",
            duration=age,
            **fields,
        )
        if client is None:
            self._pause_spares()
        else:
            self._admission.count_crash(client.address, monotonic())
        self._remove_client(handler)
        self._remove(handler)

    def _pause_spares(self) -> None:
        """Fork no spare handler for a while: forks fail, or spare handlers crash at once."""
        when = monotonic() + SPARE_RETRY_SECONDS
        self._loop.timers.set("spares", when, lambda: None)

    def _remove_client(self, handler: HandlerProcess) -> None:
        if handler.packed_client is not None:
            self._admission.remove_client(packed_address(handler.packed_client))
            handler.packed_client = None
            if self._certificates:
                self._certificates.pop(handler.number, None)

    def _remove(self, handler: HandlerProcess) -> None:
        self._table.remove(handler)
        _close_channel(handler)

    def _schedule_trim(self) -> None:
        if self._table.idle > self.spare and "surplus" not in self._loop.timers:
            when = monotonic() + SURPLUS_IDLE_SECONDS
            self._loop.timers.set("surplus", when, self._drain_surplus)

    def _drain_surplus(self) -> None:
        """Have those idle handlers exit that are more than `handlers.spare` asks for."""
        while self._table.idle > self.spare:
            handler = self._table.pop_longest_idle()
            if handler is not None:
                _close_channel(handler)


def _close_channel(handler: HandlerProcess) -> None:
    """Close the channel of a handler, which then exits as soon as it has no client."""
    if handler.channel is not None:
        handler.channel.close()
        handler.channel = None
