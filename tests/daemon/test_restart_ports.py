"""Ports of other programs, which a restart finds before it stops the daemon."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

HELD = "127.0.0.2"


@pytest.mark.parametrize("address", [HELD, "0.0.0.0"])  # noqa: S104 - the start fails
def test_a_port_of_another_program_stops_nothing(daemon: MakeDaemon, address: str) -> None:
    """The daemon has other ports."""
    served = daemon(listen=[{"port": 0}])
    with socket.socket() as other:
        other.bind((HELD, 0))
        other.listen()
        port = other.getsockname()[1]
        served.configure(listen=[{"address": address, "port": port}])
        ran = served.tetrad("restart")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(
        "tetrad: not stopped, because the daemon could not start again;"
        f" {address}:{port}: address already in use; another program listens there"
    )
    assert ANSWER.fullmatch(served.connect().ask())


def test_the_ports_of_the_daemon_itself_are_free(daemon: MakeDaemon) -> None:
    """Also while a client is connected."""
    served = daemon(listen=[{"address": HELD, "port": 0}])
    port = served.port
    with socket.create_connection((HELD, port)):
        served.configure(listen=[{"address": HELD, "port": port}])
        ran = served.tetrad("restart")
    assert ran.status == 0, ran
    served.adopt(ran.out)
