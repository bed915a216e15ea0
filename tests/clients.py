"""A client made by hand, byte by byte."""

from __future__ import annotations

import fcntl
import re
import socket
import struct
import time
from typing import TYPE_CHECKING

from processes import PATIENCE_SECONDS, state_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d")
"""What `time` is answered."""

ANSWER_BYTES = 19


class Client:
    """A connection to a daemon, made by hand."""

    def __init__(self, connected: socket.socket, find: Callable[[str], int] | None = None) -> None:
        self.socket = connected
        self.socket.settimeout(PATIENCE_SECONDS)
        self.name = _name_of(connected)
        self._find = find
        self._handler = 0

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def read(self, count: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        data = b""
        while len(data) < count and (more := self.socket.recv(count - len(data))):
            data += more
        return data

    def read_all(self) -> bytes:
        """Return all that comes until the server ends it. Raises ConnectionResetError."""
        data = b""
        while more := self.socket.recv(65536):
            data += more
        return data

    def ask(self, command: bytes = b"time") -> bytes:
        """Ask for the time, and return the answer."""
        self.send(command)
        return self.read(ANSWER_BYTES)

    def echo(self, data: bytes) -> bytes:
        """Send something, and return as much as was sent."""
        self.send(data)
        return self.read(len(data))

    def quit(self) -> bytes:
        """Leave politely, and return all that still came."""
        self.send(b"quit")
        rest = self.read_all()
        self.close()
        return rest

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def is_refused(self) -> bool:
        """Wait for the end of a connection that is never served."""
        try:
            return self.read_all() == b""
        except ConnectionError:
            return True

    def flood(self, data: bytes) -> None:
        """Send it again and again until the server has had enough."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while True:
                self.send(data)
                assert time.monotonic() < deadline, "the server listens for ever"
        except (ConnectionError, TimeoutError):
            pass

    def was_read(self) -> bool:
        """Tell whether the server has read all that was sent: its queue, by /proc/net/tcp."""
        ours, theirs = self.socket.getsockname(), self.socket.getpeername()
        wanted = (f":{theirs[1]:04X}", f":{ours[1]:04X}")
        with open(f"/proc/net/tcp{6 if ':' in ours[0] else ''}", encoding="ascii") as file:
            rows = [line.split() for line in file]
        queues = [row[4] for row in rows if (row[1][-5:], row[2][-5:]) == wanted]
        return all(queue.endswith(":00000000") for queue in queues) and not self._unsent()

    def _is_awaited(self) -> bool:
        """Tell whether the handler, if we can know it, sleeps: only its client is waited for."""
        if self._find is None:
            return True
        self._handler = self._handler or self._find(self.name)
        try:
            return bool(self._handler) and state_of(self._handler) == "S"
        except (FileNotFoundError, ProcessLookupError):
            return True

    def _unsent(self) -> int:
        siocoutq = 0x5411
        count: int = struct.unpack("i", fcntl.ioctl(self.socket, siocoutq, b"\0\0\0\0"))[0]
        return count

    def say(self, data: bytes) -> None:
        """Send it, and wait until the server has done with it, and waits for more."""
        self.send(data)
        until(lambda: self.was_read() and self._is_awaited(), "the server's read")

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def _name_of(connected: socket.socket) -> str:
    """Return what the log calls a client; one of a Unix socket has no name of its own."""
    name = connected.getsockname()
    if not isinstance(name, tuple):
        return ""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
