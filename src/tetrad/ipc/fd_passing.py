"""Passing a client's socket from the master to a waiting handler: one message per client."""

from __future__ import annotations

import _socket
import marshal
import sys

from tetrad.system.sockets import FAMILIES

ClientHandoff = tuple[str, str, int, bytes, str]
"""A client as its handler needs it: name, family, listener index, log context, connection id."""

_MAX_MESSAGE_BYTES = 2048
_FD_BYTES = 4


def open_channel() -> tuple[_socket.socket, _socket.socket]:
    """Return the two ends of a channel for clients. Raises OSError."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def send_client(end: _socket.socket, socket: _socket.socket, client: ClientHandoff) -> bool:
    """Pass a client without waiting; False if the other end is closed or the channel is full."""
    descriptor = socket.fileno().to_bytes(_FD_BYTES, sys.byteorder)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)]
    try:
        end.sendmsg([marshal.dumps(client)], rights, _socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def receive_client(end: _socket.socket) -> tuple[_socket.socket, ClientHandoff] | None:
    """Wait for a client; None at the end of the channel. Raises OSError."""
    data, rights, _, _ = end.recvmsg(_MAX_MESSAGE_BYTES, _socket.CMSG_LEN(_FD_BYTES))
    if not rights:
        return None
    client: ClientHandoff = marshal.loads(data)  # noqa: S302 - from the master
    fd = int.from_bytes(rights[0][2], sys.byteorder)
    return _socket.socket(FAMILIES[client[1]], _socket.SOCK_STREAM, 0, fd), client
