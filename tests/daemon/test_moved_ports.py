"""A reload that moves a port between addresses of which only one can be open at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.network_namespaces import Network
from tests.support.processes import TIMEOUT_SECONDS, in_background, stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

PORT = 10_000

SHARE = """
import socket, sys
other = socket.socket()
other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
try:
    other.bind(("{address}", {port}))
except OSError as error:
    sys.exit(error.errno)
"""
"""A program that binds to an address, and shares its port with all who let it."""

MOVES = [
    ("127.0.0.1", "0.0.0.0", None),  # noqa: S104 - in a network of its own
    ("127.0.0.1", "0.0.0.0", "nobody"),  # noqa: S104
    ("127.0.0.1", "::", None),
    ("0.0.0.0", "::", None),  # noqa: S104
    ("::1", "::", None),
]
"""From where to where, and `daemon.user`."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")


@pytest.fixture
def network() -> Iterator[Network]:
    """Return a network in which no other program has a port."""
    made = Network()
    yield made
    made.close()


def listener(address: str, **more: object) -> dict[str, object]:
    """Return a listener of a configuration."""
    return {"address": address, "port": PORT, **more}


def client_of(network: Network, address: str) -> socket.socket:
    """Return a client that has asked a listener for the time."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    connected = network.do(lambda: socket.create_connection((host, PORT), timeout=10))
    connected.send(b"time")
    return connected


def is_answered(client: socket.socket) -> bool:
    """Tell whether a client gets its answer."""
    with contextlib.suppress(ConnectionError):
        return bool(ANSWER.fullmatch(client.recv(100)))
    return False


def start(network: Network, made: Daemon) -> None:
    """Start a daemon in the network."""
    network.do(made.start)


@pytest.mark.parametrize("move", MOVES)
def test_a_port_moves_there_and_back(
    prepared: MakeDaemon, network: Network, nobodys_folder: str, move: tuple[str, str, str | None]
) -> None:
    """Clients in the backlog are served, and those that are connected stay."""
    one, other, user = move
    served = prepared(folder=nobodys_folder, listen=[listener(one)], daemon={"user": user})
    start(network, served)
    clients = [client_of(network, one)]
    for before, after in ((one, other), (other, one)):
        served.configure(listen=[listener(after)])
        with stopped(served.pid):
            clients += [client_of(network, before) for _ in range(3)]
            served.signal(signal.SIGHUP)
        served.wait_for("server.reloaded", count=1 if after == other else 2)
        clients.append(client_of(network, after))
    assert all(is_answered(client) for client in clients)
    for client in clients:
        client.send(b"time")
        assert is_answered(client)
        client.close()
    assert not served.events("client.refused")
    assert not served.events("server.reload_failed")
    served.stop()


def test_clients_that_connect_during_a_move_are_served(
    prepared: MakeDaemon, network: Network
) -> None:
    """Also those whose handshake had begun at the old listener, by the new configuration."""
    served = prepared(listen=[listener("127.0.0.1")])
    start(network, served)
    is_over = threading.Event()
    answers: list[bool] = []

    def come() -> None:
        while not is_over.is_set():
            with network.do(socket.socket) as client:
                # The last segment of the handshake waits for data.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
                client.settimeout(TIMEOUT_SECONDS)
                client.connect(("127.0.0.1", PORT))
                is_over.wait(0.03)
                client.send(b"time")
                answers.append(is_answered(client))

    crowd = [in_background(come) for _ in range(4)]
    for address in ("0.0.0.0", "127.0.0.1"):  # noqa: S104
        served.configure(listen=[listener(address)])
        assert served.tetrad("reload").status == 0
    is_over.set()
    for one in crowd:
        one.join()
    assert answers
    assert all(answers)
    assert not served.events("client.refused")
    served.stop()


def test_a_proxy_header_that_begins_before_a_move_may_end_after_it(
    prepared: MakeDaemon, network: Network
) -> None:
    """The new listener, which needs a header too, continues with the connection."""
    proxy = {"proxy": {"trusted": ["127.0.0.0/8"]}}
    served = prepared(listen=[listener("127.0.0.1", **proxy)])
    start(network, served)
    with network.do(socket.socket) as balancer:
        balancer.settimeout(TIMEOUT_SECONDS)
        balancer.connect(("127.0.0.1", PORT))
        balancer.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 ")
        served.configure(listen=[listener("0.0.0.0", **proxy)])  # noqa: S104
        assert served.tetrad("reload").status == 0
        balancer.send(b"1 2\r\ntime")
        assert is_answered(balancer)
    assert not served.events("client.refused")
    served.stop()


def test_a_socket_of_another_user_cannot_share_its_port(
    prepared: MakeDaemon, network: Network, nobodys_folder: str
) -> None:
    """As one that root opened in an earlier release, or may not give away: a restart moves it."""
    served = prepared(
        folder=nobodys_folder, listen=[listener("127.0.0.1")], daemon={"user": "nobody"}
    )
    options = ("--bounding-set=-chown", "--inh-caps=-chown")
    served.command = ["setpriv", *options, *served.command]
    start(network, served)
    served.configure(listen=[listener("0.0.0.0")])  # noqa: S104
    ran = served.tetrad("reload")
    assert ran.status == 78
    assert f"this daemon listens on 127.0.0.1:{PORT}; use tetrad restart\n" in ran.err
    with client_of(network, "127.0.0.1") as client:
        assert is_answered(client)
    restarted = network.do(partial(served.tetrad, "restart"))
    assert restarted.status == 0, restarted
    served.adopt(restarted.out)
    served.stop()


def test_a_move_that_another_program_prevents_changes_nothing(
    prepared: MakeDaemon, network: Network
) -> None:
    """The old listener never stops to listen, and the error names the other program."""
    served = prepared(listen=[listener("127.0.0.1")])
    start(network, served)
    with network.do(socket.socket) as other:
        other.bind(("127.0.0.2", PORT))
        other.listen()
        served.configure(listen=[listener("0.0.0.0")])  # noqa: S104
        ran = served.tetrad("reload")
        assert (ran.status, ran.out) == (1, "")
        assert f"0.0.0.0:{PORT}: address already in use; another program listens there" in ran.err
        with client_of(network, "127.0.0.1") as client:
            assert is_answered(client)
    assert served.tetrad("reload").status == 0
    served.stop()


def test_no_other_user_can_share_a_port_that_was_moved(
    prepared: MakeDaemon, network: Network
) -> None:
    """The kernel lets sockets of one user share it, which the move needs."""
    served = prepared(listen=[listener("127.0.0.1")])
    start(network, served)
    served.configure(listen=[listener("0.0.0.0")])  # noqa: S104
    assert served.tetrad("reload").status == 0
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", sys.executable]
    for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104
        share = [*command, "-c", SHARE.format(address=address, port=PORT)]
        assert network.do(partial(subprocess.call, share)) == errno.EADDRINUSE
    served.stop()
