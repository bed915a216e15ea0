"""The acceptor: listens, admits or refuses clients, and passes admitted ones to handlers."""

from __future__ import annotations

import errno
import os
from time import monotonic

from tetrad.ipc import log_protocol
from tetrad.master.connections import Client
from tetrad.master.proxy_handshakes import NOTHING_SENT, PendingConnection, ProxyHandshakes
from tetrad.master.refusal_log import RefusalLog
from tetrad.protocol.proxy import HeaderError
from tetrad.system import sockets
from tetrad.system.addresses import parse_peer
from tetrad.system.text import LIMIT_HINTS, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from tetrad.ipc.saved_state import AcceptorState, PendingState
    from tetrad.master.admission import Admission
    from tetrad.master.connections import Listener
    from tetrad.master.handler_pool import Admitted, HandlerPool
    from tetrad.protocol.proxy import Header
    from tetrad.system.event_loop import EventLoop

ACCEPTED_PER_TURN = 32
"""Clients accepted from one listener before the event loop looks at everything else."""

PAUSE_SECONDS = 0.1
"""How long the acceptor pauses when the machine lacks descriptors, memory or processes."""

HANDSHAKE_SECONDS = 0.05
"""How long the handshake of a client may take that has begun when its listener is closed."""

_ERRORS_OF_ONE_CLIENT = {
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
"""Errors of accept(2) that concern one connection, which is gone; the next one may be fine."""


class Acceptor:
    """Accepts clients, and passes each to the handler pool or refuses it.

    Sockets `inherited` from the service manager are closed without accepting what is in their
    backlogs: the next daemon will.
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
        self._inherited = inherited
        self._loop = loop
        self._log = log
        self._admission = admission
        self._handlers = handlers
        self._open: dict[int, Listener] = {}
        self._closing: dict[int, Listener] = {}
        self._after_closing: list[Callable[[], object]] = []
        self._run = os.urandom(4).hex()
        self._serial = 0
        self._is_paused = False
        self._handshakes = ProxyHandshakes(loop, admission, self._finish_handshake, self._reject)
        self.refusals = RefusalLog()
        self.accepted = 0
        self.peak = 0

    @property
    def listeners(self) -> list[Listener]:
        """The open listeners."""
        return list(self._open.values())

    @property
    def fds(self) -> list[int]:
        """The descriptors of listeners and of connections whose PROXY header is incomplete."""
        return [*self._open, *self._handshakes.fds]

    def save_state(self) -> AcceptorState:
        """Return the state for the next version."""
        return {
            "run": self._run,
            "serial": self._serial,
            "accepted": self.accepted,
            "peak": self.peak,
            "refused": self.refusals.counts,
            "listeners": [
                {"name": one.config["name"], "family": one.config["family"], "fd": fd}
                for fd, one in self._open.items()
            ],
            "pending_connections": self._handshakes.save_state(),
        }

    def restore_state(self, state: AcceptorState) -> None:
        """Continue the connection ids and counters of the version before."""
        self._run, self._serial = state["run"], state["serial"]
        self.accepted, self.peak = state["accepted"], state["peak"]
        self.refusals.counts |= state["refused"]

    def restore_pending(self, states: list[PendingState]) -> None:
        """Continue to wait for the PROXY headers that the version before waited for."""
        for listener in self.listeners:
            self._handshakes.restore_state(listener, states)

    def add_listener(self, listener: Listener) -> None:
        """Accept clients of a listener."""
        fd = listener.socket.fileno()
        self._open[fd] = listener
        self._loop.track_fd(fd)
        if not self._is_paused:
            self._loop.watch(fd, self._accept)

    def close_listener(self, listener: Listener, successor: Listener | None = None) -> None:
        """Accept the clients in the backlog of a listener, and close it.

        A TCP client is connected, as it sees it, before it is in the backlog. So the socket stays
        open for HANDSHAKE_SECONDS, in which no handshake begins. The clients that come are refused,
        or served as those of its `successor` at the same port.
        """
        fd = listener.socket.fileno()
        if not self._inherited:
            sockets.stop_connecting(listener.socket)
            while self._accept(fd):
                pass
        self._handshakes.end_listener(listener, successor)
        self._loop.unwatch(fd)
        del self._open[fd]
        if self._inherited:
            listener.socket.close()
        elif listener.port is None:
            sockets.close(listener.socket)
        else:
            self._closing[fd] = listener
            on_late = self._refuse_late
            if successor is not None:
                listener.configure(successor.config)
                on_late = self._serve_late
            self._loop.watch(fd, on_late)
            when = monotonic() + HANDSHAKE_SECONDS
            self._loop.timers.set(f"close {fd}", when, lambda: self._close(fd, on_late))

    @property
    def is_closing(self) -> bool:
        """Whether a listener is being closed."""
        return bool(self._closing)

    def after_closing(self, action: Callable[[], object]) -> None:
        """Call `action` as soon as no listener is being closed."""
        if self._closing:
            self._after_closing.append(action)
        else:
            action()

    def _refuse_late(self, fd: int) -> None:
        """Refuse the clients whose handshake had begun when their listener was closed."""
        listener = self._closing[fd]
        while listener.has_pending():
            try:
                socket, peer = listener.accept()
            except OSError:
                self._loop.suspend(fd)
                return
            socket.close()
            self._serial += 1
            name, address = parse_peer(peer, self._serial)
            client = Client(name, address, f"{self._run}-{self._serial:x}", listener)
            self._log_refusal(client, "stopping")

    def _serve_late(self, fd: int) -> None:
        """Serve such clients, or refuse them as at any time."""
        more = True
        while more:
            admitted: list[Admitted] = []
            more = self._accept_batch(self._closing[fd], admitted)
            if admitted:
                self._serve(admitted)
            for socket, _ in admitted:
                socket.close()

    def _close(self, fd: int, on_late: Callable[[int], object]) -> None:
        on_late(fd)
        self._loop.unwatch(fd)
        sockets.close(self._closing.pop(fd).socket)
        if not self._closing:
            actions, self._after_closing = self._after_closing, []
            for action in actions:
                action()

    def stop(self) -> None:
        """Close all listeners; clients in their backlogs are refused."""
        self._admission.stop()
        for listener in self.listeners:
            self.close_listener(listener)

    def _accept(self, fd: int) -> bool:
        """Accept some clients; False once the backlog is empty, or none can be accepted."""
        listener = self._open[fd]
        admitted: list[Admitted] = []
        more = self._accept_batch(listener, admitted)
        if admitted:
            self._serve(admitted)
            for socket, _ in admitted:
                socket.close()
        return more

    def _accept_batch(self, listener: Listener, admitted: list[Admitted]) -> bool:
        """Append the clients that are admitted to `admitted`.

        Returns False once the backlog is empty, or if no client can be accepted.
        """
        for _ in range(ACCEPTED_PER_TURN):
            try:
                socket, peer = listener.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _ERRORS_OF_ONE_CLIENT:
                    continue
                if error.errno == errno.EINVAL:
                    return False  # the socket was shut down, and its backlog is empty
                self._pause(error)
                return False
            self._serial = serial = self._serial + 1
            name, address = parse_peer(peer, serial)
            client = Client(name, address, f"{self._run}-{serial:x}", listener)
            if listener.is_behind_proxy:
                self._start_handshake(listener, socket, client, admitted)
            else:
                self._admit(listener, socket, client, admitted)
            if not listener.has_pending():
                return False
        return True

    def _admit(
        self, listener: Listener, socket: _socket.socket, client: Client, admitted: list[Admitted]
    ) -> None:
        """Append a client to `admitted`, or refuse it."""
        reason = self._admission.refusal_reason(client.address, monotonic())
        if reason is None:
            self._admission.add_client(client.address)
            fd = socket.fileno()
            if fd > self._loop.highest_fd:
                self._loop.track_fd(fd)
            if listener.needs_recv_timeout:
                sockets.set_recv_timeout(socket)
            admitted.append((socket, client))
        else:
            socket.close()
            self._log_refusal(client, reason)

    def _start_handshake(
        self, listener: Listener, socket: _socket.socket, client: Client, admitted: list[Admitted]
    ) -> None:
        """Admit the client named in the PROXY header, or wait for the rest of the header."""
        proxy = listener.config["proxy"]
        timeout = 0.0 if proxy is None else proxy["timeout"]
        connection = PendingConnection(socket, client, listener, monotonic() + timeout)
        if not self._is_trusted(connection):
            return
        try:
            header = connection.read_header()
        except HeaderError as error:
            self._reject(connection, "proxy", str(error))
            return
        if header is not None:
            self._admit(listener, socket, connection.client_from(header), admitted)
        elif reason := self._admission.refusal_reason(None, monotonic()):
            self._reject(connection, reason)
        else:
            self._handshakes.add(connection)

    def _is_trusted(self, connection: PendingConnection) -> bool:
        """Tell whether a connection comes from a balancer; refuse it otherwise."""
        listener, client = connection.listener, connection.client
        if not listener.trusts(client.address):
            connection.socket.close()
            rule = f"listen[{listener.config['index']}].proxy.trusted"
            self._log_refusal(client, "access", rule=rule)
            return False
        return True

    def _finish_handshake(self, connection: PendingConnection, header: Header) -> None:
        """Admit a client whose PROXY header is complete now."""
        if not self._is_trusted(connection):
            return
        admitted: list[Admitted] = []
        client = connection.client_from(header)
        self._admit(connection.listener, connection.socket, client, admitted)
        if admitted:
            self._serve(admitted)
            connection.socket.close()

    def _reject(self, connection: PendingConnection, reason: str, error: str | None = None) -> None:
        connection.socket.close()
        if error == NOTHING_SENT:
            self._log_tcp_check(connection.client)
        else:
            self._log_refusal(connection.client, reason, error)

    def _log_tcp_check(self, client: Client) -> None:
        """Count a health check of a balancer that sends nothing, with a line of the level debug."""
        self.refusals.counts["proxy"] += 1
        fields = {**client.fields(), log_protocol.HEALTH_CHECK: True, "error": NOTHING_SENT}
        self._log.event("debug", log_protocol.CLIENT_REFUSED, reason="proxy", **fields)

    def _serve(self, admitted: list[Admitted]) -> None:
        """Pass clients to handlers, which own the connections from here on."""
        served, error = self._handlers.serve(admitted)
        self.accepted += served
        if served < len(admitted):
            for _, client in admitted[served:]:
                self._admission.remove_client(client.address)
                self._log_refusal(client, "resources")
        self.peak = max(self.peak, self._admission.clients)
        if self._admission.clients >= self._admission.crowded_from:
            self._handlers.make_room(len(admitted))
        if error is not None:
            self._pause(error)

    def _log_refusal(
        self, client: Client, reason: str, error: str | None = None, rule: str | None = None
    ) -> None:
        self._handlers.check_often()  # the place of one that has crashed is for the next client
        if reason == "clients" and self._admission.clients >= self._admission.crowded_from:
            self._handlers.make_room(1)
        if self.refusals.add(reason, monotonic()):
            fields = client.fields() if error is None else {**client.fields(), "error": error}
            if reason == "access":
                fields = {**fields, "rule": rule or self._admission.denying_rule(client.address)}
            self._log.event("warning", log_protocol.CLIENT_REFUSED, reason=reason, **fields)
        due = self.refusals.suppressed_due
        if due is not None and "refusals" not in self._loop.timers:
            self._loop.timers.set("refusals", due, self.log_suppressed)

    def log_suppressed(self) -> None:
        """Log how many refusals of each reason had no line of their own."""
        for reason, count in self.refusals.take_suppressed():
            self._log.event("warning", log_protocol.CLIENT_REFUSED, reason=reason, suppressed=count)

    def _pause(self, error: OSError) -> None:
        """Leave clients in the backlogs for a moment; one log line for each shortage."""
        now = monotonic()
        if "overloaded" not in self._loop.timers:
            why = {"why": hint} if (hint := LIMIT_HINTS.get(error.errno or 0)) else {}
            fields = {"error": reason_of(error), **why}
            self._log.event("error", log_protocol.SERVER_OVERLOADED, **fields)
        self._loop.timers.set("overloaded", now + 10 * PAUSE_SECONDS, lambda: None)
        self._is_paused = True
        for fd in self._open:
            self._loop.unwatch(fd)
        self._loop.timers.set("resume", now + PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._is_paused = False
        for fd in self._open:
            self._loop.watch(fd, self._accept)
