"""A test client that sends and reads single bytes."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from typing import TYPE_CHECKING

from tests.support.processes import TIMEOUT_SECONDS, state_of, until
from tests.support.socket_queues import bytes_not_read, bytes_not_received

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d")
"""The answer to `time`."""

ANSWER_BYTES = 19


class Client:
    """A connection to a daemon.

    `find` returns the pid of a client's handler, 0 if it has none yet.
    """

    def __init__(self, connected: socket.socket, find: Callable[[str], int] | None = None) -> None:
        self.socket = connected
        self.socket.settimeout(TIMEOUT_SECONDS)
        self.name = _name_of(connected)
        self._find = find
        self._handler = 0

    def send(self, data: bytes) -> None:
        """Send all bytes."""
        self.socket.sendall(data)

    def read(self, count: int) -> bytes:
        """Read `count` bytes, or fewer at end of file."""
        data = bytearray()
        while len(data) < count and (more := self.socket.recv(count - len(data))):
            data += more
        return bytes(data)

    def read_all(self) -> bytes:
        """Read until the server closes the connection. Raises ConnectionResetError.

        The sending side is then closed: the server waits a second for that after its last byte.
        """
        data = bytearray()
        while more := self.socket.recv(65536):
            data += more
        with contextlib.suppress(OSError):  # it is closed already
            self.half_close()
        return bytes(data)

    def ask(self, command: bytes = b"time") -> bytes:
        """Send a command, and read an answer of the length of a `time` answer."""
        self.send(command)
        return self.read(ANSWER_BYTES)

    def echo(self, data: bytes) -> bytes:
        """Send data, and read as many bytes back."""
        self.send(data)
        return self.read(len(data))

    def quit(self) -> bytes:
        """Send `quit`, read until the server closes, close, and return the bytes read."""
        self.send(b"quit")
        rest = self.read_all()
        self.close()
        return rest

    def half_close(self) -> None:
        """Shut down the sending side of the connection."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def is_refused(self) -> bool:
        """Tell whether the server closes the connection without an answer."""
        try:
            return self.read_all() == b""
        except ConnectionError:
            return True

    def send_until_closed(self, data: bytes) -> None:
        """Send the data repeatedly until the server closes the connection."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        try:
            while True:
                self.send(data)
                assert time.monotonic() < deadline, "the server does not close the connection"
        except (ConnectionError, TimeoutError):
            pass

    def was_read(self) -> bool:
        """Tell whether the server has received and read all bytes sent."""
        ours, theirs = self.socket.getsockname()[:2], self.socket.getpeername()[:2]
        return not bytes_not_received(ours, theirs) and not bytes_not_read(theirs, ours)

    def _is_handler_waiting(self) -> bool:
        """Tell whether the handler sleeps, i.e. waits for its client; true if it is unknown."""
        if self._find is None:
            return True
        self._handler = self._handler or self._find(self.name)
        try:
            return bool(self._handler) and state_of(self._handler) == "S"
        except (FileNotFoundError, ProcessLookupError):
            return True

    def send_and_wait(self, data: bytes) -> None:
        """Send data, and wait until the server has read it and waits for more."""
        self.send(data)
        until(lambda: self.was_read() and self._is_handler_waiting(), "the server to read")

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def _name_of(connected: socket.socket) -> str:
    """Return the client's address as the log shows it; empty for a Unix socket."""
    name = connected.getsockname()
    if not isinstance(name, tuple):
        return ""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
