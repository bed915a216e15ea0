"""How many bytes wait in the queues of a TCP connection of this machine.

The kernel is asked over netlink (sock_diag(7)), as `ss` does: one connection costs microseconds,
while /proc/net/tcp lists all of the machine.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct

Address = tuple[str, int]

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_ALL_STATES = 0xFFFFFFFF
_LISTEN = 10
_NO_COOKIE = b"\xff" * 8

_HEADER = struct.Struct("=IHHII")
_RECEIVE_QUEUE_OFFSET = _HEADER.size + 56
"""Where struct inet_diag_msg has idiag_rqueue; idiag_wqueue follows."""


def bytes_not_read(reader: Address, writer: Address) -> int:
    """Return how many bytes `reader` has received and not read; 0 if its socket is closed."""
    queues = _queues(reader, writer)
    return queues[0] if queues else 0


def bytes_not_received(writer: Address, reader: Address) -> int:
    """Return how many bytes of `writer` the other side has not acknowledged."""
    queues = _queues(writer, reader)
    return queues[1] if queues else 0


def _queues(local: Address, remote: Address) -> tuple[int, int] | None:
    """Return the receive queue and the send queue of a socket; None if there is no such socket."""
    return (_asked if _has_netlink() else _listed)(local, remote)


@functools.cache
def _has_netlink() -> bool:
    """Tell whether the kernel answers; without its module tcp_diag it does not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client:
            try:
                return _asked(client.getsockname(), address) is not None
            except OSError:
                return False


def _listed(local: Address, remote: Address) -> tuple[int, int] | None:
    """Look the socket up in /proc/net/tcp, by its two ports."""
    wanted = (f":{local[1]:04X}", f":{remote[1]:04X}")
    with open(f"/proc/net/tcp{6 if ':' in local[0] else ''}", encoding="ascii") as file:
        rows = [line.split() for line in file]
    for row in rows:
        if (row[1][-5:], row[2][-5:]) == wanted:
            sending, receiving = row[4].split(":")
            return int(receiving, 16), int(sending, 16)
    return None


def _asked(local: Address, remote: Address) -> tuple[int, int] | None:
    """Ask for one socket over netlink. Raises OSError."""
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    hosts = (socket.inet_pton(family, host).ljust(16, b"\0") for host, _ in (local, remote))
    request = (
        struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, _ALL_STATES)
        + struct.pack("!HH", local[1], remote[1])
        + b"".join(hosts)
        + struct.pack("=I8s", 0, _NO_COOKIE)
    )
    size = _HEADER.size + len(request)
    header = _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(header + request)
        answer = kernel.recv(8192)
    if _HEADER.unpack_from(answer)[1] != _NLMSG_ERROR:
        if answer[_HEADER.size + 1] == _LISTEN:
            return None  # the listener of a connection that is closed
        receiving, sending = struct.unpack_from("=II", answer, _RECEIVE_QUEUE_OFFSET)
        return receiving, sending
    number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
    if number != errno.ENOENT:
        raise OSError(number, os.strerror(number))
    return None
