"""The control socket: one request a connection, one line of JSON back.

The master never waits here: it reads a request as it arrives, and a child writes a long answer.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

from tetrad.ipc.reply import send_reply, write_with_timeout
from tetrad.system import sockets
from tetrad.system.json_lite import encode
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tetrad.ipc.reply import Fork
    from tetrad.system.event_loop import EventLoop

MAX_CONNECTIONS = 16
"""Connections whose request is incomplete; the oldest makes room for a new one."""

MAX_REQUEST_BYTES = 65536
"""Enough for a command line with the paths of two folders and a library path."""

REQUEST_TIMEOUT_SECONDS = 2.0
"""The time that a peer has to send its request."""

_CREDENTIALS_BYTES = 12
"""The size of a struct ucred: pid, uid, gid."""


class Route:
    """What answers a request; `is_privileged`: only root and the daemon's user may send it."""

    __slots__ = ("handle", "has_argument", "is_privileged")

    def __init__(
        self,
        handle: Callable[[ControlRequest], object],
        *,
        has_argument: bool = False,
        is_privileged: bool = False,
    ) -> None:
        self.handle = handle
        self.has_argument = has_argument
        self.is_privileged = is_privileged


class ControlRequest:
    """A connection to the control socket and its request. One of the two replies closes it."""

    __slots__ = ("_fork", "argument", "data", "fd", "is_privileged", "socket")

    def __init__(self, socket: _socket.socket, fork: Fork, *, is_privileged: bool) -> None:
        self.socket = socket
        self.fd = socket.fileno()
        self.is_privileged = is_privileged
        self.data = b""
        self.argument = b""
        self._fork = fork

    def reply(self, answer: dict[str, object]) -> None:
        """Send an answer without waiting, and close the connection."""
        try:
            send_reply(self._fork, self.fd, encode(answer).encode() + b"\n")
        except OSError:
            pass  # the peer has gone, or no child could be forked for a slow peer
        self.socket.close()

    def reply_from_child(self, collect: Callable[[], dict[str, object]]) -> None:
        """Have a child compose and send a long answer, and close the connection."""

        def answer() -> None:
            write_with_timeout(self.fd, encode(collect()).encode() + b"\n")

        try:
            self._fork(answer, self.fd)
        except OSError as error:
            self.reply({"error": f"cannot fork to answer: {reason_of(error)}"})
        else:
            self.socket.close()


class ControlServer:
    """Accepts requests and passes them to their routes.

    Root and the daemon's user may send every request; other users that the mode of the socket
    admits may send unprivileged ones, if `may_read`.
    """

    def __init__(
        self,
        loop: EventLoop,
        listener: _socket.socket,
        fork: Fork,
        routes: Mapping[bytes, Route],
        *,
        may_read: bool,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._fork = fork
        self._routes = routes
        self._may_read = may_read
        self._incomplete: dict[int, ControlRequest] = {}

    def accept(self, listener: int) -> None:
        """Accept a connection; `listener` is the descriptor of the control socket."""
        try:
            socket, _ = sockets.accept(self._listener, "unix")
        except OSError:
            self._loop.suspend(listener)
            return
        is_privileged = _is_privileged(socket)
        if not (is_privileged or self._may_read):
            socket.close()
            return
        if len(self._incomplete) >= MAX_CONNECTIONS:
            self._close(next(iter(self._incomplete.values())))
        request = ControlRequest(socket, self._fork, is_privileged=is_privileged)
        self._incomplete[request.fd] = request
        self._loop.watch(request.fd, lambda _fd: self._on_readable(request))
        deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        self._loop.timers.set(f"control {request.fd}", deadline, lambda: self._close(request))

    def _on_readable(self, request: ControlRequest) -> None:
        """Read more of a request; answer it when it is complete."""
        try:
            data = request.socket.recv(MAX_REQUEST_BYTES, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        request.data += data
        if b"\n" in request.data:
            self._unwatch(request)
            self._dispatch(request)
        elif not data or len(request.data) > MAX_REQUEST_BYTES:
            self._close(request)

    def _dispatch(self, request: ControlRequest) -> None:
        line = request.data.partition(b"\n")[0]
        word, separator, request.argument = line.partition(b" ")
        route = self._routes.get(word)
        if route is None or route.has_argument != bool(separator):
            known = sorted(name.decode() for name in self._routes)
            request.reply({"error": f"unknown request; known are {', '.join(known)}"})
        elif route.is_privileged and not request.is_privileged:
            name = word.decode()
            request.reply({"error": f"only root and the daemon's user may request {name}"})
        else:
            route.handle(request)

    def _close(self, request: ControlRequest) -> None:
        self._unwatch(request)
        request.socket.close()

    def _unwatch(self, request: ControlRequest) -> None:
        del self._incomplete[request.fd]
        self._loop.unwatch(request.fd)
        self._loop.timers.cancel(f"control {request.fd}")


def _is_privileged(peer: _socket.socket) -> bool:
    """Tell whether the peer of a connection is root or the daemon's user (SO_PEERCRED)."""
    data = peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS_BYTES)
    return int.from_bytes(data[4:8], sys.byteorder) in {0, os.geteuid()}
