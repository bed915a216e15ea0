"""Clients that become unreachable: no packet arrives from them any more, not even a reset."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import termios
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import hostile_clients as hostile
from tests.support import processes
from tests.support.clients import ANSWER, Client
from tests.support.network_namespaces import Cable
from tests.support.processes import descriptors_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import Figure, MakeDaemon

GONE_SECONDS = 120.0
"""How soon the session of an unreachable client ends, whatever its deadlines are."""

TOLERANCE_SECONDS = 0.5
SLACK_SECONDS = 5.0
"""How far the kernel may miss a time of two minutes: its long timers are coarse."""

NO_DEADLINES = dict.fromkeys(
    ("first_command_timeout", "idle_timeout", "max_duration", "send_timeout")
)

_PIDFD_GETFD = 438


class Site:
    """A daemon at one end of a cable, and clients at the other."""

    def __init__(self, cable: Cable, daemon: Daemon) -> None:
        self.daemon = daemon
        self._cable = cable
        self._clients: list[Client] = []

    def start(self, **session: object) -> None:
        """Start the daemon with these deadlines and no others."""
        self.daemon.configure(session=NO_DEADLINES | session)
        self._cable.servers.do(self.daemon.start)

    def served(self) -> Client:
        """Return a client that has had an answer."""
        place = (Cable.SERVER, self.daemon.port)
        connected = self._cable.clients.do(lambda: socket.create_connection(place))
        client = Client(connected)
        self._clients.append(client)
        assert ANSWER.fullmatch(client.ask())
        return client

    def pull(self) -> float:
        """Pull the cable, and return the time."""
        self._cable.pull()
        return time.monotonic()

    def end_of(self, client: Client) -> Event:
        """Wait for the end of a client's session in the log."""
        return self.daemon.wait_for("client.disconnected", client=client.name)

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients:
            client.close()


@pytest.fixture
def site(cable: Cable, prepared: MakeDaemon) -> Iterator[Site]:
    """Create a daemon at one end of a cable, not started yet."""
    listen = [{"address": Cable.SERVER, "port": 0}]
    made = Site(cable, prepared(listen=listen, commands=hostile.LONG_COMMAND))
    yield made
    made.close()


def fill_buffers(client: Client) -> None:
    """Request more than the buffers hold; wait until the first answers have arrived."""
    client.send(b"long" * hostile.ANSWERS_TO_FILL_BUFFERS)
    until(lambda: unread(client) >= 16384, "the first of the answers")


def unread(client: Client) -> int:
    """Return how many bytes have arrived at a client that does not read."""
    count: int = struct.unpack("i", fcntl.ioctl(client.socket, termios.FIONREAD, bytes(4)))[0]
    return count


def test_an_unreachable_idle_client_is_ended_by_idle_timeout(site: Site, figure: Figure) -> None:
    """The server keeps `idle_timeout` without help of the client."""
    site.start(idle_timeout="1s")
    client = site.served()
    pulled = site.pull()
    assert site.end_of(client)["reason"] == "idle_timeout"
    seconds = time.monotonic() - pulled
    assert seconds <= 1.0 + TOLERANCE_SECONDS
    figure(f"ended {seconds:.2f} s after the cable was pulled")


def test_an_unreachable_reading_client_is_ended_by_send_timeout(site: Site, figure: Figure) -> None:
    """The cable is pulled during an answer."""
    site.start(send_timeout="1s")
    client = site.served()
    fill_buffers(client)
    pulled = site.pull()
    assert site.end_of(client)["reason"] == "send_timeout"
    seconds = time.monotonic() - pulled
    assert seconds <= 1.0 + TOLERANCE_SECONDS
    figure(f"ended {seconds:.2f} s after the cable was pulled")


def test_keepalive_and_user_timeout_are_set(daemon: MakeDaemon) -> None:
    """A client's socket has keepalive and TCP_USER_TIMEOUT, both at two minutes or less."""
    served = daemon()
    served.served()
    connected = socket_of(served.handlers[0])
    tcp = {
        name: connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    }
    is_kept_alive = connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    connected.close()
    assert is_kept_alive
    silence = tcp["TCP_KEEPIDLE"] + tcp["TCP_KEEPINTVL"] * tcp["TCP_KEEPCNT"]
    assert silence <= GONE_SECONDS
    assert 0 < tcp["TCP_USER_TIMEOUT"] <= GONE_SECONDS * 1000


def socket_of(handler: int) -> socket.socket:
    """Return a duplicate of a handler's client socket."""
    of_sockets = [fd for fd, where in descriptors_of(handler).items() if where[:7] == "socket:"]
    assert len(of_sockets) == 1
    pidfd = os.pidfd_open(handler)
    fd = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, of_sockets[0], 0)
    os.close(pidfd)
    if fd < 0:
        pytest.skip(f"cannot duplicate another process's socket: {os.strerror(ctypes.get_errno())}")
    return socket.socket(fileno=fd)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_without_deadlines_the_kernel_ends_unreachable_clients(
    site: Site, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle or during an answer, the session ends within two minutes."""
    monkeypatch.setattr(processes, "TIMEOUT_SECONDS", GONE_SECONDS + SLACK_SECONDS)
    site.start()
    idle, busy = site.served(), site.served()
    fill_buffers(busy)
    pulled = site.pull()
    assert [site.end_of(client)["reason"] for client in (idle, busy)] == ["reset"] * 2
    seconds = time.monotonic() - pulled
    assert seconds <= GONE_SECONDS + SLACK_SECONDS
    assert site.daemon.status()["clients"]["now"] == 0
    figure(f"both ended {seconds:.1f} s after the cable was pulled")
