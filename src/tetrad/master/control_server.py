"""The control socket: `status`, `reload`, `upgrade`. One request a connection, one line back.

Answers are JSON. The master never waits for anyone here: a request is read as it comes, and a
status, which can be long, is written by a child from its snapshot of everything.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

from tetrad.ipc.fds import LOG_COUNTERS
from tetrad.ipc.log_counters import LogCounters
from tetrad.ipc.reply import send_reply, write_with_timeout
from tetrad.master import status
from tetrad.system import addresses, sockets
from tetrad.system.json_lite import encode
from tetrad.system.text import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.master.process import Master

MAX_CONNECTIONS = 16
MAX_REQUEST_BYTES = 64
REQUEST_TIMEOUT_SECONDS = 2.0
"""How long a peer has to send its request."""


class ControlServer:
    """Accepts operators' requests: from root and from the daemon's own user.

    The members of `daemon.control_group`, whom the socket's mode lets in, may look but not touch.
    """

    def __init__(self, listener: _socket.socket, master: Master) -> None:
        self._listener = listener
        self._master = master
        self._conversations: dict[int, ControlConnection] = {}

    def accept(self, listener: int) -> None:
        """Take a connection; of too many the one that has been silent longest has to go."""
        try:
            peer, _ = sockets.accept(self._listener, "unix")
        except OSError:
            self._master.loop.suspend(listener)
            return
        fd = peer.fileno()
        is_trusted = _is_trusted(peer)
        may_look = is_trusted or self._master.config["control_group"] is not None
        if not may_look:
            peer.close()
            return
        if len(self._conversations) >= MAX_CONNECTIONS:
            self._close(next(iter(self._conversations.values())))
        conversation = ControlConnection(peer, is_trusted=is_trusted)
        self._conversations[fd] = conversation
        self._master.loop.watch(fd, lambda _fd: self._on_readable(conversation))
        when = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        self._master.loop.timers.set(f"control {fd}", when, lambda: self._close(conversation))

    def _on_readable(self, conversation: ControlConnection) -> None:
        """Read what has come of a request; answer it when it is whole."""
        try:
            data = conversation.peer.recv(MAX_REQUEST_BYTES, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        conversation.request += data
        if b"\n" in conversation.request:
            self._answer(conversation, conversation.request.partition(b"\n")[0])
        elif not data or len(conversation.request) > MAX_REQUEST_BYTES:
            self._close(conversation)

    def _answer(self, conversation: ControlConnection, request: bytes) -> None:
        if request == b"status":
            self._send_status(conversation)
        elif request == b"reload" and conversation.is_trusted:
            self._unwatch(conversation)
            self._master.reloader.request(lambda outcome: self._reply(conversation, outcome))
        elif request == b"upgrade" and conversation.is_trusted:
            self._unwatch(conversation)
            fd = conversation.fd
            self._master.upgrader.request(lambda outcome: self._reply(conversation, outcome), fd)
        elif request.startswith(b"source "):
            self._reply(conversation, self._source_report(request.removeprefix(b"source ")))
        else:
            self._reply(
                conversation,
                {"error": "the requests are: status, source ADDRESS; upgrade and reload for root"},
            )

    def _source_report(self, address: bytes) -> dict[str, object]:
        try:
            source = addresses.parse(address.decode("ascii", "replace"))
        except (OSError, ValueError):
            return {"error": "not an address"}
        return self._master.admission.report(source, time.monotonic())

    def _send_status(self, conversation: ControlConnection) -> None:
        """Have a child write the status; should there be none, the peer hears that."""
        counters = LogCounters(LOG_COUNTERS).read()

        def report() -> None:
            answer = encode(status.status(self._master, *counters))
            write_with_timeout(conversation.fd, answer.encode() + b"\n")

        try:
            self._master.fork(report, conversation.fd)
        except OSError as error:
            self._reply(conversation, {"error": f"no process for an answer: {reason_of(error)}"})
        else:
            self._close(conversation)

    def _reply(self, conversation: ControlConnection, answer: dict[str, object]) -> None:
        """Send an answer, and end."""
        try:
            send_reply(self._master.fork, conversation.fd, encode(answer).encode() + b"\n")
        except OSError:
            pass  # the operator has left, or there is no room for a child
        self._close(conversation)

    def _close(self, conversation: ControlConnection) -> None:
        self._unwatch(conversation)
        conversation.peer.close()

    def _unwatch(self, conversation: ControlConnection) -> None:
        """Listen to it no more."""
        if self._conversations.pop(conversation.fd, None) is not None:
            self._master.loop.unwatch(conversation.fd)
            self._master.loop.timers.cancel(f"control {conversation.fd}")


class ControlConnection:
    """A connection, what has come of its request, and whether it may change anything."""

    __slots__ = ("fd", "is_trusted", "peer", "request")

    def __init__(self, peer: _socket.socket, *, is_trusted: bool) -> None:
        self.peer = peer
        self.is_trusted = is_trusted
        self.fd = peer.fileno()
        self.request = b""


def _is_trusted(peer: _socket.socket) -> bool:
    credentials = peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder) in {0, os.geteuid()}
