"""A listener that a stop or a reload closes: no client that is connected is dropped silently."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import in_background, stopped, until
from tests.support.strace import attached, needs_strace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

PLACE = f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}.78"
"""A loopback address that only this test uses, so that all its ports are free."""

CLIENTS = 40
"""More than the master accepts in one turn of its event loop."""


def refused(daemon: Daemon, reason: str) -> int:
    """Return how many refusals of a reason the log has, those without a line included."""
    lines = daemon.events("client.refused", reason=reason)
    return sum(line.get("suppressed", 1) for line in lines)


def is_answered(client: socket.socket) -> bool:
    """Tell whether a client that has asked for the time gets it."""
    with contextlib.suppress(ConnectionError):
        return bool(ANSWER.fullmatch(client.recv(100)))
    return False


@pytest.mark.parametrize("clients_each", [1, 3])
@pytest.mark.parametrize("place", ["127.0.0.1", "unix:t.sock"])
def test_clients_in_the_backlog_at_a_stop_are_served_or_refused_with_a_line(
    daemon: MakeDaemon, place: str, clients_each: int
) -> None:
    """The first of them are accepted before the master has read of the signal."""
    listener = {"address": place} if place.startswith("unix:") else {"port": 0}
    served = daemon(listen=[listener], handlers={"clients_each": clients_each})
    with contextlib.ExitStack() as stack:
        with stopped(served.pid):
            clients = []
            for _ in range(CLIENTS):
                connected = served.connect() if served.ports else served.connect_to_path("t.sock")
                connected.send(b"time")
                clients.append(stack.enter_context(connected.socket))
            served.signal(signal.SIGTERM)
        answered = sum(is_answered(client) for client in clients)
    assert served.is_gone()
    assert refused(served, "stopping") == CLIENTS - len(served.events("client.connected"))
    assert answered == len(served.events("client.command", command="time"))
    assert not served.events("server.overloaded")
    assert {line["reason"] for line in served.events("client.refused")} <= {"stopping"}


class Newcomers:
    """Clients that connect one after another; what each has seen, by its address."""

    def __init__(self, port: int) -> None:
        self._place = (PLACE, port)
        self._over = threading.Event()
        self.served: list[str] = []
        self.ended: list[str] = []
        self.not_connected = 0

    @contextlib.contextmanager
    def coming(self, threads: int) -> Iterator[None]:
        """Have clients come during the block."""
        crowd = [in_background(self._come) for _ in range(threads)]
        try:
            yield
        finally:
            self._over.set()
            for one in crowd:
                one.join()

    def _come(self) -> None:
        while not self._over.is_set():
            with socket.socket() as client:
                client.settimeout(10)
                try:
                    client.connect(self._place)
                except ConnectionRefusedError:
                    self.not_connected += 1
                    time.sleep(0.005)
                    continue
                name = "{}:{}".format(*client.getsockname())
                try:
                    client.sendall(b"time")
                    is_served = ANSWER.fullmatch(client.recv(100)) is not None
                except ConnectionError:
                    is_served = False
                (self.served if is_served else self.ended).append(name)


@needs_strace
@pytest.mark.parametrize("end", ["stop", "reload"])
def test_no_client_is_connected_between_the_last_accept_and_the_close(
    daemon: MakeDaemon, figure: Figure, end: str
) -> None:
    """The master is slow there, which leaves time to connect."""
    served = daemon(listen=[{"port": 0}, {"address": PLACE, "port": 11_000}])
    before = served.connect(source="127.0.0.2")
    served.configure(listen=[{"port": 0}])
    newcomers = Newcomers(11_000)
    with (
        attached(served.pid, "epoll_ctl,close,getsockname", "delay_enter=50000"),
        newcomers.coming(2),
    ):
        until(lambda: newcomers.served, "a client")
        if end == "stop":
            served.signal(signal.SIGTERM)
            served.wait_for("server.stopped")
        else:
            served.signal(signal.SIGHUP)
            served.wait_for("server.reloaded")
        until(lambda: newcomers.not_connected, "a client that cannot connect")
    before.close()
    assert len(newcomers.ended) == refused(served, "stopping")
    figure(f"{len(newcomers.served)} served, {len(newcomers.ended)} refused")


@pytest.mark.parametrize("moves", [5, pytest.param(200, marks=pytest.mark.long)])
def test_clients_of_a_port_that_is_moved_are_served_or_refused_with_a_line(
    daemon: MakeDaemon, figure: Figure, moves: int
) -> None:
    """Clients come all the time, whether somebody listens or not."""
    served = daemon(listen=[{"port": 0}])
    places = ([{"port": 0}, {"address": PLACE, "port": 11_001}], [{"port": 0}])
    newcomers = Newcomers(11_001)
    with newcomers.coming(3):
        for move in range(2 * moves):
            served.configure(listen=places[move % 2])
            served.signal(signal.SIGHUP)
            served.wait_for("server.reloaded", count=move + 1)
    served.stop()
    assert not newcomers.ended or len(newcomers.ended) == refused(served, "stopping")
    figure(f"{len(newcomers.served)} served, {len(newcomers.ended)} refused")
