"""A client on its way from the master to a handler that waits: one message, with its socket."""

from __future__ import annotations

import _socket
import marshal
import sys

from tetrad.system.sockets import FAMILIES

ClientHandoff = tuple[str, str, int, bytes, str]
"""A client as its handler needs it: name, family, listener index, log context, connection id."""

_LONGEST_CLIENT = 2048
_FD_BYTES = 4


def open_channel() -> tuple[_socket.socket, _socket.socket]:
    """Return the two ends of what clients are passed through. Raises OSError."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def send_client(end: _socket.socket, socket: _socket.socket, client: ClientHandoff) -> bool:
    """Pass a client on, without waiting; False if the other end is gone or has no room."""
    descriptor = socket.fileno().to_bytes(_FD_BYTES, sys.byteorder)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)]
    try:
        end.sendmsg([marshal.dumps(client)], rights, _socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def receive_client(end: _socket.socket) -> tuple[_socket.socket, ClientHandoff] | None:
    """Wait for a client; None when there will be none. Raises OSError."""
    data, rights, _, _ = end.recvmsg(_LONGEST_CLIENT, _socket.CMSG_LEN(_FD_BYTES))
    if not rights:
        return None
    client: ClientHandoff = marshal.loads(data)  # noqa: S302 - our own
    fd = int.from_bytes(rights[0][2], sys.byteorder)
    return _socket.socket(FAMILIES[client[1]], _socket.SOCK_STREAM, 0, fd), client
