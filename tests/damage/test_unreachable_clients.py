"""Clients whose cable is pulled: nothing comes from them any more, not even that they are gone."""

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

import processes
from clients import ANSWER, Client
from damage import hostile
from damage.network_namespaces import Cable
from processes import descriptors_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Figure, MakeDaemon
    from daemons import Daemon, Event

GONE_SECONDS = 120.0
"""Within this time a client is gone of whom nothing is heard, whatever its deadlines are."""

TOLERANCE_SECONDS = 0.5
SLACK_SECONDS = 5.0
"""By how much the kernel may miss a time of two minutes: its timers become coarser."""

FOREVER = dict.fromkeys(("first_command_timeout", "idle_timeout", "max_duration", "send_timeout"))

_PIDFD_GETFD = 438


class Site:
    """A daemon at one end of a cable, and clients at the other."""

    def __init__(self, cable: Cable, daemon: Daemon) -> None:
        self.daemon = daemon
        self._cable = cable
        self._clients: list[Client] = []

    def start(self, **session: object) -> None:
        """Start the daemon with these deadlines, and no other."""
        self.daemon.configure(session=FOREVER | session)
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
        """Pull the cable, and return when that was."""
        self._cable.pull()
        return time.monotonic()

    def end_of(self, client: Client) -> Event:
        """Wait for the end of a client's session, by the log."""
        return self.daemon.wait_for("client.disconnected", client=client.name)

    def close(self) -> None:
        """Leave."""
        for client in self._clients:
            client.close()


@pytest.fixture
def site(cable: Cable, prepared: MakeDaemon) -> Iterator[Site]:
    """Prepare a daemon at the end of a cable."""
    listen = [{"address": Cable.SERVER, "port": 0}]
    made = Site(cable, prepared(listen=listen, commands=hostile.LONG_COMMAND))
    yield made
    made.close()


def ask_too_much(client: Client) -> None:
    """Ask for answers that are still on their way when the cable is pulled."""
    client.send(b"long" * hostile.TOO_MUCH)
    until(lambda: unread(client) >= 16384, "the first of the answers")


def unread(client: Client) -> int:
    """Return how many bytes have arrived at a client that does not read."""
    count: int = struct.unpack("i", fcntl.ioctl(client.socket, termios.FIONREAD, bytes(4)))[0]
    return count


def test_a_silent_client_is_ended_by_its_deadline(site: Site, figure: Figure) -> None:
    """`idle_timeout` is kept by the server alone."""
    site.start(idle_timeout="1s")
    client = site.served()
    pulled = site.pull()
    assert site.end_of(client)["reason"] == "idle_timeout"
    seconds = time.monotonic() - pulled
    assert seconds <= 1.0 + TOLERANCE_SECONDS
    figure(f"gone {seconds:.2f} s after the cable was pulled")


def test_a_client_in_the_middle_of_an_answer_is_ended_by_its_deadline(
    site: Site, figure: Figure
) -> None:
    """`send_timeout` is for clients that cannot read, too."""
    site.start(send_timeout="1s")
    client = site.served()
    ask_too_much(client)
    pulled = site.pull()
    assert site.end_of(client)["reason"] == "send_timeout"
    seconds = time.monotonic() - pulled
    assert seconds <= 1.0 + TOLERANCE_SECONDS
    figure(f"gone {seconds:.2f} s after the cable was pulled")


def test_the_kernel_is_to_look_after_clients(daemon: MakeDaemon) -> None:
    """A client's socket has keepalive and a limit for what is unacknowledged, two minutes each."""
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
    """Return the very socket of a handler's client, to be looked at."""
    of_sockets = [fd for fd, where in descriptors_of(handler).items() if where[:7] == "socket:"]
    assert len(of_sockets) == 1
    pidfd = os.pidfd_open(handler)
    fd = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, of_sockets[0], 0)
    os.close(pidfd)
    if fd < 0:
        pytest.skip(f"no look at another process's socket: {os.strerror(ctypes.get_errno())}")
    return socket.socket(fileno=fd)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_clients_without_a_deadline_are_gone_in_two_minutes(
    site: Site, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle or in the middle of an answer: the kernel finds out, and the session has ended."""
    monkeypatch.setattr(processes, "PATIENCE_SECONDS", GONE_SECONDS + SLACK_SECONDS)
    site.start()
    idle, busy = site.served(), site.served()
    ask_too_much(busy)
    pulled = site.pull()
    assert [site.end_of(client)["reason"] for client in (idle, busy)] == ["reset"] * 2
    seconds = time.monotonic() - pulled
    assert seconds <= GONE_SECONDS + SLACK_SECONDS
    assert site.daemon.status()["clients"]["now"] == 0
    figure(f"both gone {seconds:.1f} s after the cable was pulled")
