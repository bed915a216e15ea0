"""The door: listeners, who is let in, and who is refused."""

from __future__ import annotations

import errno
import os
from time import monotonic

from tetrad.ipc import log_protocol
from tetrad.master.connections import Client
from tetrad.master.proxy_handshakes import PendingConnection, ProxyHandshakes
from tetrad.master.refusal_log import RefusalLog
from tetrad.protocol.proxy import HeaderError
from tetrad.system import sockets
from tetrad.system.addresses import read
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tetrad.master.admission import Admission
    from tetrad.master.connections import Listener
    from tetrad.master.handler_pool import Arrival, HandlerPool
    from tetrad.master.saved_state import AcceptorState, PendingState
    from tetrad.protocol.proxy import Header
    from tetrad.system.event_loop import EventLoop

ACCEPTED_PER_TURN = 32
"""Clients accepted from one listener before the loop looks at everything else."""

PAUSE_SECONDS = 0.1
"""How long the door stays shut when there are no descriptors, memory or processes left."""

_ITS_OWN = {
    errno.ECONNABORTED,
    errno.EINTR,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENONET,
}
"""What accept(2) tells of one client, which is gone; the next one may be well."""


class Acceptor:
    """Accepts clients, and hands them to the crew or turns them away.

    Listeners that are `inherited` from a service manager are closed as they are: who waits there
    waits for the next daemon.
    """

    def __init__(
        self,
        loop: EventLoop,
        journal: log_protocol.LogWriter,
        admission: Admission,
        crew: HandlerPool,
        *,
        inherited: bool,
    ) -> None:
        self.inherited = inherited
        self._loop = loop
        self._journal = journal
        self._admission = admission
        self._crew = crew
        self._open: dict[int, Listener] = {}
        self._run = os.urandom(4).hex()
        self._serial = 0
        self._shut = False
        self._vestibule = ProxyHandshakes(loop, admission, self._welcome, self._turn_away)
        self.refusals = RefusalLog()
        self.accepted = 0
        self.peak = 0

    @property
    def listeners(self) -> list[Listener]:
        """Where clients are accepted."""
        return list(self._open.values())

    def leave(self) -> AcceptorState:
        """Return what the next version goes on with."""
        return {
            "run": self._run,
            "serial": self._serial,
            "accepted": self.accepted,
            "peak": self.peak,
            "refused": self.refusals.counts,
            "guests": self._vestibule.leave(),
        }

    def inherit(self, left: AcceptorState) -> None:
        """Go on from what the version before has left."""
        self._run, self._serial = left["run"], left["serial"]
        self.accepted, self.peak = left["accepted"], left["peak"]
        self.refusals.counts |= left["refused"]

    def take_in(self, guests: list[PendingState]) -> None:
        """Have those wait on who were in the vestibule of the version before."""
        for listener in self.listeners:
            self._vestibule.inherit(listener, guests)

    def open(self, listener: Listener) -> None:
        """Accept clients here, too."""
        fd = listener.socket.fileno()
        self._open[fd] = listener
        self._loop.saw(fd)
        if not self._shut:
            self._loop.watch(fd, self._accept)

    def close(self, listener: Listener) -> None:
        """Accept no more clients here but those that the kernel has accepted already."""
        fd = listener.socket.fileno()
        while not self.inherited and self._accept(fd):
            pass
        self._vestibule.clear(listener)
        self._loop.unwatch(fd)
        del self._open[fd]
        if self.inherited:
            listener.socket.close()
        else:
            sockets.close(listener.socket, listener.plan)

    def stop(self) -> None:
        """Close, and refuse whoever still waits at the door."""
        self._admission.stop()
        for listener in self.listeners:
            self.close(listener)

    def _accept(self, fd: int) -> bool:
        """Accept some clients; False once there is none left, or no room for one."""
        listener = self._open[fd]
        arrivals: list[Arrival] = []
        more = self._collect(listener, arrivals)
        if arrivals:
            self._admit(arrivals)
            for socket, _ in arrivals:
                socket.close()
        return more and not self._shut

    def _collect(self, listener: Listener, arrivals: list[Arrival]) -> bool:
        """Add the clients that come in to `arrivals`; False once nobody is left at the door."""
        for _ in range(ACCEPTED_PER_TURN):
            try:
                socket, peer = listener.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _ITS_OWN:
                    continue
                self._pause(error)
                return False
            self._serial = serial = self._serial + 1
            name, address = read(peer, serial)
            client = Client(name, address, f"{self._run}-{serial:x}", listener)
            if listener.is_behind_proxy:
                self._receive(listener, socket, client, arrivals)
            else:
                self._let_in(listener, socket, client, arrivals)
            if not listener.has_more():
                return False
        return True

    def _let_in(
        self, listener: Listener, socket: _socket.socket, client: Client, arrivals: list[Arrival]
    ) -> None:
        """Add a client to `arrivals`, or turn it away."""
        reason = self._admission.refusal(client.address, monotonic())
        if reason is None:
            self._admission.enter(client.address)
            fd = socket.fileno()
            if fd > self._loop.highest:
                self._loop.saw(fd)
            if listener.is_forgetful:
                sockets.limit_reads(socket)
            arrivals.append((socket, client))
        else:
            socket.close()
            self._refuse(client, reason)

    def _receive(
        self, listener: Listener, socket: _socket.socket, client: Client, arrivals: list[Arrival]
    ) -> None:
        """Let in whom a balancer brings, if it says so at once; else it may wait a while."""
        proxy = listener.plan["proxy"]
        patience = 0.0 if proxy is None else proxy["timeout"]
        guest = PendingConnection(socket, client, listener, monotonic() + patience)
        if not listener.trusts(client.address):
            self._turn_away(guest, "access")
            return
        try:
            header = guest.hear()
        except HeaderError as error:
            self._turn_away(guest, "proxy", str(error))
            return
        if header is not None:
            self._let_in(listener, socket, guest.brings(header), arrivals)
        elif reason := self._admission.refusal(None, monotonic()):
            self._turn_away(guest, reason)
        else:
            self._vestibule.keep(guest)

    def _welcome(self, guest: PendingConnection, header: Header) -> None:
        """Let in whom a balancer brings that has made us wait."""
        arrivals: list[Arrival] = []
        self._let_in(guest.listener, guest.socket, guest.brings(header), arrivals)
        if arrivals:
            self._admit(arrivals)
            guest.socket.close()

    def _turn_away(self, guest: PendingConnection, reason: str, error: str | None = None) -> None:
        guest.socket.close()
        self._refuse(guest.client, reason, error)

    def _admit(self, arrivals: list[Arrival]) -> None:
        """Give clients to handlers, which their sockets are for from here on."""
        served, error = self._crew.serve(arrivals)
        self.accepted += served
        if served < len(arrivals):
            for _, client in arrivals[served:]:
                self._admission.leave(client.address)
                self._refuse(client, "resources")
        self.peak = max(self.peak, self._admission.clients)
        if error is not None:
            self._pause(error)

    def _refuse(self, client: Client, reason: str, error: str | None = None) -> None:
        if self.refusals.add(reason, monotonic()):
            fields = client.fields() if error is None else {**client.fields(), "error": error}
            self._journal.event("warning", log_protocol.CLIENT_REFUSED, reason=reason, **fields)
        due = self.refusals.summary_due
        if due is not None and "refusals" not in self._loop.timers:
            self._loop.timers.set("refusals", due, self.sum_up)

    def sum_up(self) -> None:
        """Log how many refusals had no line of their own."""
        for reason, count in self.refusals.summary():
            self._journal.event(
                "warning", log_protocol.CLIENT_REFUSED, reason=reason, suppressed=count
            )

    def _pause(self, error: OSError) -> None:
        """Leave clients in the backlog until there is room; say so once an episode."""
        now = monotonic()
        if "overloaded" not in self._loop.timers:
            self._journal.event("error", log_protocol.SERVER_OVERLOADED, error=reason_of(error))
        self._loop.timers.set("overloaded", now + 10 * PAUSE_SECONDS, lambda: None)
        self._shut = True
        for fd in self._open:
            self._loop.unwatch(fd)
        self._loop.timers.set("reopen", now + PAUSE_SECONDS, self._reopen)

    def _reopen(self) -> None:
        self._shut = False
        for fd in self._open:
            self._loop.watch(fd, self._accept)
