"""A daemon whose listening sockets come from systemd."""

from __future__ import annotations

import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import run
from tests.support.socket_activation import START_AS_SYSTEMD_DOES

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon


def listening_socket(host: str = "127.0.0.1") -> socket.socket:
    """Return a TCP socket that listens at a port of its own."""
    return socket.create_server(
        (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_clients_that_connected_before_the_start_are_served(
    prepared: MakeDaemon, host: str
) -> None:
    """Deadlines apply to them: a silent client is disconnected."""
    listening = listening_socket(host)
    port = listening.getsockname()[1]
    daemon = prepared(
        listen=[{"address": host, "port": port}], session={"first_command_timeout": "300ms"}
    )
    with listening, socket.create_connection((host, port)) as silent:
        with socket.create_connection((host, port)) as quitting:
            quitting.sendall(b"quit")
            fd = listening.fileno()
            command = [sys.executable, "-c", START_AS_SYSTEMD_DOES, f"{fd}", daemon.file]
            ran = run(command, daemon.environment, pass_fds=[fd])
            assert ran.status == 0, ran.err
            daemon.adopt(ran.out)
            assert quitting.recv(9) == b"quit"
        assert silent.recv(1) == b""
        reasons = {daemon.wait_for("client.disconnected", count=n)["reason"] for n in (1, 2)}
    assert reasons == {"quit", "first_command_timeout"}


def test_a_start_keeps_sockets_while_it_waits_for_a_stopping_daemon(
    daemon: MakeDaemon,
) -> None:
    """The second try of the start uses the passed sockets, too."""
    served = daemon(daemon={"stop_timeout": "300ms"})
    served.allow_lost_handlers = True
    served.connect().send_and_wait(b"ti")
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    listening = listening_socket()
    with listening:
        served.configure(listen=[{"port": listening.getsockname()[1]}])
        fd = listening.fileno()
        command = [sys.executable, "-c", START_AS_SYSTEMD_DOES, f"{fd}", served.file]
        ran = run(command, served.environment, pass_fds=[fd])
        assert ran.status == 0, ran.err
        served.adopt(ran.out)
        assert ANSWER.fullmatch(served.connect().ask())
