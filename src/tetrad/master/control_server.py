"""The control socket: one request a connection, one line of JSON back.

Every local user can connect. Who may ask is decided by what the kernel knows of the peer, not by
the mode of the socket: root and the daemon's user may send every request, members of
`daemon.control_group` unprivileged ones, and others are told that they may not.

The master never waits here: it reads a request as it arrives, and a child writes a long answer.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

from tetrad.ipc.reply import send_reply, write_with_timeout
from tetrad.system import ancestry, sockets
from tetrad.system.json_lite import encode
from tetrad.system.text import with_limit_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tetrad.ipc.reply import Fork
    from tetrad.system.event_loop import EventLoop

MAX_CONNECTIONS_PER_USER = 16
"""Connections of one user whose request is incomplete; the oldest makes room for a new one."""

MAX_REQUEST_BYTES = 65536
"""Enough for a command line with the paths of two folders and a library path."""

REQUEST_TIMEOUT_SECONDS = 2.0
"""The time that a peer has to send its request."""

_CREDENTIALS_BYTES = 12
"""The size of a struct ucred: pid, uid, gid."""

_SO_PEERGROUPS = 59
_MAX_OPTION_BYTES = 1024
"""The most that Python reads of a socket option: 256 groups."""

_ALL_IDS = 4294967295
"""The length of a map of ids (user_namespaces(7)) that maps all of them."""

_DEFAULT_OVERFLOW_ID = 65534


class Route:
    """What answers a request; `is_privileged`: only root and the daemon's user may send it.

    `names_code`: the sender chooses what the master executes, so a program that the daemon runs for
    a client may not send it.
    """

    __slots__ = ("handle", "has_argument", "is_privileged", "names_code")

    def __init__(
        self,
        handle: Callable[[ControlRequest], object],
        *,
        has_argument: bool = False,
        is_privileged: bool = False,
        names_code: bool = False,
    ) -> None:
        self.handle = handle
        self.has_argument = has_argument
        self.is_privileged = is_privileged
        self.names_code = names_code


class ControlRequest:
    """A connection to the control socket and its request. One of the two replies closes it."""

    __slots__ = ("_fork", "argument", "data", "fd", "is_privileged", "pid", "socket", "uid")

    def __init__(
        self, socket: _socket.socket, fork: Fork, pid: int, uid: int, *, is_privileged: bool
    ) -> None:
        self.socket = socket
        self.fd = socket.fileno()
        self.pid = pid
        self.uid = uid
        self.is_privileged = is_privileged
        self.data = b""
        self.argument = b""
        self._fork = fork

    def refuse(self, why: str) -> None:
        """Answer a user who may not ask this."""
        self.reply({"error": f"permission denied: {why}", "permission": True})

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
            self.reply({"error": f"cannot fork to answer: {with_limit_hint(error)}"})
        else:
            self.socket.close()


class ControlServer:
    """Accepts requests and passes them to their routes.

    `group` is the id of the group whose members may send unprivileged requests; None: no group.
    """

    def __init__(
        self,
        loop: EventLoop,
        listener: _socket.socket,
        fork: Fork,
        routes: Mapping[bytes, Route],
        group: int | None,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._fork = fork
        self._routes = routes
        self._group = group
        # The id of all users of the host that a user namespace does not map proves nothing.
        unmapped = _unmapped_id()
        self._privileged = {0, os.geteuid()} - {unmapped}
        self._readers = {group} - {unmapped, None}
        self._incomplete: dict[int, ControlRequest] = {}

    def open(self) -> None:
        """Begin to accept connections.

        The socket listens already, but only now the kernel takes this process for the one that does
        (SO_PEERCRED at the other end).
        """
        self._listener.listen(sockets.CONTROL_BACKLOG)
        self._loop.watch(self._listener.fileno(), self._accept)

    def _accept(self, listener: int) -> None:
        try:
            socket, _ = sockets.accept(self._listener, "unix")
        except OSError:
            self._loop.suspend(listener)
            return
        pid, uid, gid = _credentials(socket)
        is_privileged = uid in self._privileged
        request = ControlRequest(socket, self._fork, pid, uid, is_privileged=is_privileged)
        if not is_privileged and self._readers.isdisjoint((gid, *_groups(socket))):
            request.refuse(f"user id {uid} is not {self._allowed()}")
            return
        own = [one for one in self._incomplete.values() if one.uid == uid]
        if len(own) >= MAX_CONNECTIONS_PER_USER:
            self._close(own[0])
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
        if 0 <= request.data.find(b"\n") <= MAX_REQUEST_BYTES:
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
            request.refuse(f"only root and the daemon's user may request {word.decode()}")
        elif route.names_code and _may_be_own_program(request):
            request.refuse("not for a program that the daemon runs; otherwise use root")
        else:
            route.handle(request)

    def _allowed(self) -> str:
        users = f"root or the daemon's user (id {os.geteuid()})"
        if self._group is None:
            return f"{users}, and daemon.control_group is not set"
        text = f"{users}, nor in daemon.control_group (id {self._group})"
        if not _is_group_mapped(self._group):
            text += ", which PrivateUsers=yes in the unit hides from the daemon: set it to no"
        return text

    def _close(self, request: ControlRequest) -> None:
        self._unwatch(request)
        request.socket.close()

    def _unwatch(self, request: ControlRequest) -> None:
        del self._incomplete[request.fd]
        self._loop.unwatch(request.fd)
        self._loop.timers.cancel(f"control {request.fd}")


def _may_be_own_program(request: ControlRequest) -> bool:
    """Tell whether a request may be that of a program which the daemon runs for a client.

    In a unit, /proc hides the processes of the daemon's user that are not in it.
    """
    return request.uid == os.geteuid() and ancestry.is_descendant(request.pid)


def _credentials(peer: _socket.socket) -> tuple[int, int, int]:
    """Return the pid, the user and the group of the process that has connected (SO_PEERCRED)."""
    data = peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS_BYTES)
    pid, uid, gid = (int.from_bytes(data[at : at + 4], sys.byteorder) for at in (0, 4, 8))
    return pid, uid, gid


def _groups(peer: _socket.socket) -> list[int]:
    """Return the supplementary groups of the process that has connected (SO_PEERGROUPS).

    Those of a process that has more than can be read are not known.
    """
    try:
        data = peer.getsockopt(_socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION_BYTES)
    except OSError:
        return []
    return [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data), 4)]


def _unmapped_id() -> int | None:
    """Return the id of all users that this user namespace does not map; None: it maps all."""
    if any(count == _ALL_IDS for _, count in _id_map("uid")):
        return None
    try:
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return _DEFAULT_OVERFLOW_ID


def _is_group_mapped(gid: int) -> bool:
    return any(first <= gid < first + count for first, count in _id_map("gid"))


def _id_map(kind: str) -> list[tuple[int, int]]:
    """Return the ids of this user namespace: the first of each range, and its length."""
    try:
        with open(f"/proc/self/{kind}_map", "rb") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    return [(int(first), int(count)) for first, _, count in rows]
