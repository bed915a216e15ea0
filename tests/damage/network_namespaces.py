"""Networks of a test's own, with a cable between them that can be pulled. Needs root and `ip`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_CLONE_NEWNET = 0x40000000

_T = TypeVar("_T")


class Network:
    """A network namespace. A thread lives there, and so does what it makes: sockets, processes.

    It is gone with them.
    """

    def __init__(self) -> None:
        self._inhabitant = ThreadPoolExecutor(1)
        self.thread = self.do(_move_out)
        self.ip("link", "set", "lo", "up")

    def do(self, work: Callable[[], _T]) -> _T:
        """Do something there."""
        return self._inhabitant.submit(work).result()

    def ip(self, *arguments: str) -> None:
        """Set something up there, in the words of the program `ip`."""
        self.do(lambda: subprocess.run(["/usr/bin/env", "ip", *arguments], check=True))

    def close(self) -> None:
        """Leave."""
        self._inhabitant.shutdown()


class Cable:
    """Two networks and a cable: the server is at `SERVER`, its clients are at the other end."""

    SERVER, CLIENT = "192.0.2.1", "192.0.2.2"

    def __init__(self) -> None:
        self.servers, self.clients = Network(), Network()
        there = ("netns", str(self.clients.thread))
        self.servers.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", *there)
        for network, address in ((self.servers, self.SERVER), (self.clients, self.CLIENT)):
            network.ip("address", "add", f"{address}/24", "dev", "eth0")
            network.ip("link", "set", "eth0", "up")

    def pull(self) -> None:
        """Pull it out, at the clients' end: nobody says goodbye, and nothing arrives any more."""
        self.clients.ip("link", "set", "eth0", "down")

    def close(self) -> None:
        """Have nothing left of it."""
        self.servers.close()
        self.clients.close()


def _move_out() -> int:
    """Move this thread to a network of its own, and return how to call it there."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return threading.get_native_id()
