"""Network namespaces for tests, and a virtual cable between two of them. Needs root and `ip`."""

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
    """A network namespace, held open by a thread that lives in it.

    Sockets and processes that the thread creates belong to the namespace. It ends with the last of
    them.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)
        self.thread = self.do(_enter_new_namespace)
        self.ip("link", "set", "lo", "up")

    def do(self, work: Callable[[], _T]) -> _T:
        """Call a function in the namespace, and return its result."""
        return self._executor.submit(work).result()

    def ip(self, *arguments: str) -> None:
        """Run `ip` in the namespace."""
        self.do(lambda: subprocess.run(["/usr/bin/env", "ip", *arguments], check=True))

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()


class Cable:
    """Two namespaces joined by a veth pair: the server at `SERVER`, clients at `CLIENT`."""

    SERVER, CLIENT = "192.0.2.1", "192.0.2.2"

    def __init__(self) -> None:
        self.servers, self.clients = Network(), Network()
        there = ("netns", str(self.clients.thread))
        self.servers.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", *there)
        for network, address in ((self.servers, self.SERVER), (self.clients, self.CLIENT)):
            network.ip("address", "add", f"{address}/24", "dev", "eth0")
            network.ip("link", "set", "eth0", "up")

    def pull(self) -> None:
        """Take the clients' end down: no packet arrives any more, not even a FIN or a reset."""
        self.clients.ip("link", "set", "eth0", "down")

    def close(self) -> None:
        """End both namespaces."""
        self.servers.close()
        self.clients.close()


def _enter_new_namespace() -> int:
    """Move this thread to a new network namespace, and return the thread's id."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return threading.get_native_id()
