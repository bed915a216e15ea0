"""The door: listeners, who is let in, and who is refused."""

from __future__ import annotations

import errno
import os
import time

from tetrad import addresses, events, listeners
from tetrad.handler import Admitted
from tetrad.refusals import Refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tetrad.admission import Admission
    from tetrad.crew import Crew
    from tetrad.loop import Loop
    from tetrad.plan import ListenerPlan

ACCEPTED_PER_TURN = 16
"""Clients accepted from one listener before the loop looks at everything else."""

PAUSE_SECONDS = 0.1
"""How long the door stays shut when the machine has no descriptors, memory or processes left."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class Listener:
    """A listening socket and its plan; `name` has the port that it really got."""

    __slots__ = ("name", "plan", "port", "socket")

    def __init__(self, plan: ListenerPlan, socket: _socket.socket) -> None:
        self.plan = plan
        self.socket = socket
        self.port = listeners.port_of(socket)
        self.name = listeners.real_name(plan, socket)


class Door:
    """Accepts clients, and hands them to the crew or turns them away.

    Listeners that are `inherited` from a service manager are closed as they are: who waits there
    waits for the next daemon.
    """

    def __init__(
        self,
        loop: Loop,
        journal: events.Journal,
        admission: Admission,
        crew: Crew,
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
        self._stopping = False
        self.refusals = Refusals()
        self.accepted = 0
        self.peak = 0

    @property
    def listeners(self) -> list[Listener]:
        """Where clients are accepted."""
        return list(self._open.values())

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
        self._loop.unwatch(fd)
        del self._open[fd]
        if self.inherited:
            listener.socket.close()
        else:
            listeners.close(listener.socket, listener.plan)

    def stop(self) -> None:
        """Close, and refuse whoever still waits at the door."""
        self._stopping = True
        for listener in self.listeners:
            self.close(listener)

    def _accept(self, fd: int) -> bool:
        """Accept some clients; False once there is none left, or no room for one."""
        listener = self._open[fd]
        for _ in range(ACCEPTED_PER_TURN):
            try:
                client, peer = listeners.accept(listener.socket)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error)
                    return False
                continue  # it happened to that one client; there may be others
            try:
                self._receive(listener, client, peer)
            finally:
                os.close(client)
            if self._shut:
                return False
        return True

    def _receive(self, listener: Listener, fd: int, peer: object) -> None:
        """Let a client in, or not. Its socket is the handler's from here on."""
        family = listener.plan["family"]
        self._serial += 1
        name, address = addresses.read(peer, self._serial)
        connection = f"{self._run}-{self._serial:x}"
        client = Admitted(name, connection, family, listener.plan["service"], listener.name)
        reason = (
            "stopping" if self._stopping else self._admission.refusal(address, time.monotonic())
        )
        if reason is not None:
            self._refuse(client, reason)
            return
        try:
            self._crew.serve(fd, client, address)
        except OSError as error:
            self._refuse(client, "resources")
            self._pause(error)
        else:
            self.accepted += 1
            self.peak = max(self.peak, self._admission.clients)

    def _refuse(self, client: Admitted, reason: str) -> None:
        if self.refusals.add(reason, time.monotonic()):
            self._journal.event("warning", events.CLIENT_REFUSED, reason=reason, **client.fields())
        due = self.refusals.summary_due
        if due is not None and "refusals" not in self._loop.timers:
            self._loop.timers.set("refusals", due, self.sum_up)

    def sum_up(self) -> None:
        """Log how many refusals had no line of their own."""
        for reason, count in self.refusals.summary():
            self._journal.event("warning", events.CLIENT_REFUSED, reason=reason, suppressed=count)

    def _pause(self, error: OSError) -> None:
        """Leave clients in the backlog until there is room; say so once an episode."""
        now = time.monotonic()
        if "overloaded" not in self._loop.timers:
            self._journal.event("error", events.SERVER_OVERLOADED, error=error.strerror)
        self._loop.timers.set("overloaded", now + 10 * PAUSE_SECONDS, lambda: None)
        self._shut = True
        for fd in self._open:
            self._loop.unwatch(fd)
        self._loop.timers.set("reopen", now + PAUSE_SECONDS, self._reopen)

    def _reopen(self) -> None:
        self._shut = False
        for fd in self._open:
            self._loop.watch(fd, self._accept)
