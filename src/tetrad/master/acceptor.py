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
from tetrad.system.addresses import parse_peer
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
        log: log_protocol.LogWriter,
        admission: Admission,
        handlers: HandlerPool,
        *,
        inherited: bool,
    ) -> None:
        self.inherited = inherited
        self._loop = loop
        self._log = log
        self._admission = admission
        self._handlers = handlers
        self._open: dict[int, Listener] = {}
        self._run = os.urandom(4).hex()
        self._serial = 0
        self._is_paused = False
        self._handshakes = ProxyHandshakes(loop, admission, self._finish_handshake, self._reject)
        self.refusals = RefusalLog()
        self.accepted = 0
        self.peak = 0

    @property
    def listeners(self) -> list[Listener]:
        """Where clients are accepted."""
        return list(self._open.values())

    def save_state(self) -> AcceptorState:
        """Return what the next version goes on with."""
        return {
            "run": self._run,
            "serial": self._serial,
            "accepted": self.accepted,
            "peak": self.peak,
            "refused": self.refusals.counts,
            "pending_connections": self._handshakes.save_state(),
        }

    def restore_state(self, left: AcceptorState) -> None:
        """Go on from what the version before has left."""
        self._run, self._serial = left["run"], left["serial"]
        self.accepted, self.peak = left["accepted"], left["peak"]
        self.refusals.counts |= left["refused"]

    def restore_pending(self, pending_connections: list[PendingState]) -> None:
        """Have those wait on who were in the vestibule of the version before."""
        for listener in self.listeners:
            self._handshakes.restore_state(listener, pending_connections)

    def add_listener(self, listener: Listener) -> None:
        """Accept clients here, too."""
        fd = listener.socket.fileno()
        self._open[fd] = listener
        self._loop.track_fd(fd)
        if not self._is_paused:
            self._loop.watch(fd, self._accept)

    def close_listener(self, listener: Listener) -> None:
        """Accept no more clients here but those that the kernel has accepted already."""
        fd = listener.socket.fileno()
        while not self.inherited and self._accept(fd):
            pass
        self._handshakes.reject_listener(listener)
        self._loop.unwatch(fd)
        del self._open[fd]
        if self.inherited:
            listener.socket.close()
        else:
            sockets.close(listener.socket)

    def stop(self) -> None:
        """Close, and refuse whoever still waits at the door."""
        self._admission.stop()
        for listener in self.listeners:
            self.close_listener(listener)

    def _accept(self, fd: int) -> bool:
        """Accept some clients; False once there is none left, or no room for one."""
        listener = self._open[fd]
        arrivals: list[Arrival] = []
        more = self._accept_batch(listener, arrivals)
        if arrivals:
            self._serve(arrivals)
            for socket, _ in arrivals:
                socket.close()
        return more and not self._is_paused

    def _accept_batch(self, listener: Listener, arrivals: list[Arrival]) -> bool:
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
            name, address = parse_peer(peer, serial)
            client = Client(name, address, f"{self._run}-{serial:x}", listener)
            if listener.is_behind_proxy:
                self._start_handshake(listener, socket, client, arrivals)
            else:
                self._admit(listener, socket, client, arrivals)
            if not listener.has_pending():
                return False
        return True

    def _admit(
        self, listener: Listener, socket: _socket.socket, client: Client, arrivals: list[Arrival]
    ) -> None:
        """Add a client to `arrivals`, or turn it away."""
        reason = self._admission.refusal_reason(client.address, monotonic())
        if reason is None:
            self._admission.add_client(client.address)
            fd = socket.fileno()
            if fd > self._loop.highest_fd:
                self._loop.track_fd(fd)
            if listener.needs_recv_timeout:
                sockets.set_recv_timeout(socket)
            arrivals.append((socket, client))
        else:
            socket.close()
            self._refuse(client, reason)

    def _start_handshake(
        self, listener: Listener, socket: _socket.socket, client: Client, arrivals: list[Arrival]
    ) -> None:
        """Let in whom a balancer brings, if it says so at once; else it may wait a while."""
        proxy = listener.config["proxy"]
        patience = 0.0 if proxy is None else proxy["timeout"]
        pending = PendingConnection(socket, client, listener, monotonic() + patience)
        if not listener.trusts(client.address):
            self._reject(pending, "access")
            return
        try:
            header = pending.read_header()
        except HeaderError as error:
            self._reject(pending, "proxy", str(error))
            return
        if header is not None:
            self._admit(listener, socket, pending.client_from(header), arrivals)
        elif reason := self._admission.refusal_reason(None, monotonic()):
            self._reject(pending, reason)
        else:
            self._handshakes.add(pending)

    def _finish_handshake(self, pending: PendingConnection, header: Header) -> None:
        """Let in whom a balancer brings that has made us wait."""
        arrivals: list[Arrival] = []
        self._admit(pending.listener, pending.socket, pending.client_from(header), arrivals)
        if arrivals:
            self._serve(arrivals)
            pending.socket.close()

    def _reject(self, pending: PendingConnection, reason: str, error: str | None = None) -> None:
        pending.socket.close()
        self._refuse(pending.client, reason, error)

    def _serve(self, arrivals: list[Arrival]) -> None:
        """Give clients to handlers, which their sockets are for from here on."""
        served, error = self._handlers.serve(arrivals)
        self.accepted += served
        if served < len(arrivals):
            for _, client in arrivals[served:]:
                self._admission.remove_client(client.address)
                self._refuse(client, "resources")
        self.peak = max(self.peak, self._admission.clients)
        if error is not None:
            self._pause(error)

    def _refuse(self, client: Client, reason: str, error: str | None = None) -> None:
        if self.refusals.add(reason, monotonic()):
            fields = client.fields() if error is None else {**client.fields(), "error": error}
            self._log.event("warning", log_protocol.CLIENT_REFUSED, reason=reason, **fields)
        due = self.refusals.suppressed_due
        if due is not None and "refusals" not in self._loop.timers:
            self._loop.timers.set("refusals", due, self.log_suppressed)

    def log_suppressed(self) -> None:
        """Log how many refusals had no line of their own."""
        for reason, count in self.refusals.take_suppressed():
            self._log.event("warning", log_protocol.CLIENT_REFUSED, reason=reason, suppressed=count)

    def _pause(self, error: OSError) -> None:
        """Leave clients in the backlog until there is room; say so once an episode."""
        now = monotonic()
        if "overloaded" not in self._loop.timers:
            self._log.event("error", log_protocol.SERVER_OVERLOADED, error=reason_of(error))
        self._loop.timers.set("overloaded", now + 10 * PAUSE_SECONDS, lambda: None)
        self._is_paused = True
        for fd in self._open:
            self._loop.unwatch(fd)
        self._loop.timers.set("reopen", now + PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._is_paused = False
        for fd in self._open:
            self._loop.watch(fd, self._accept)
