"""A service manager that receives what a daemon reports."""

from __future__ import annotations

import socket

from tests.support.processes import TIMEOUT_SECONDS

KINDS = ("path", "abstract")
"""The kinds of sockets that a service manager may have."""


class Manager:
    """A service manager's socket for notifications, at a path or with an abstract name."""

    def __init__(self, path: str, kind: str = "path") -> None:
        self.address = path if kind == "path" else f"@tetrad-test{path}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1))
        self._socket.settimeout(TIMEOUT_SECONDS)

    def receive(self) -> list[str]:
        """Return the lines of the next message."""
        return self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
