"""Addresses of one interface, and addresses that no interface has yet."""

from __future__ import annotations

import json
import os
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.network_namespaces import Cable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon

PORT = 10_000
LOCAL = "fe80::1"
LATE = "192.0.2.77"

MISSING = f"{LATE}:{PORT}: cannot assign requested address; no network interface of this host has"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Return two networks; the server's interface has a link-local address of its own."""
    made = Cable()
    made.servers.ip("address", "add", f"{LOCAL}/64", "dev", "eth0", "nodad")
    made.clients.ip("address", "add", "fe80::2/64", "dev", "eth0", "nodad")
    yield made
    made.close()


def answer_of(cable: Cable, address: str) -> bytes:
    """Return the time that a client at the other end of the cable gets."""
    place = (address, PORT)
    with cable.clients.do(lambda: socket.create_connection(place, timeout=30)) as client:
        client.send(b"time")
        return client.recv(100)


def test_a_link_local_address_is_bound_to_its_interface(prepared: MakeDaemon, cable: Cable) -> None:
    """By name and by number, which are the same address: a reload moves from one to the other."""
    number = cable.servers.do(lambda: socket.if_nametoindex("eth0"))
    by_name, by_number = f"{LOCAL}%eth0", f"{LOCAL}%{number}"
    served = prepared(listen=[{"address": by_name, "port": PORT}])
    check = cable.servers.do(lambda: served.tetrad("check"))
    assert check.status == 0, check
    cable.servers.do(served.start)
    for address in (by_name, by_number):
        served.configure(listen=[{"address": address, "port": PORT}])
        ran = served.tetrad("reload")
        assert ran.status == 0, ran
        assert ANSWER.fullmatch(answer_of(cable, f"{LOCAL}%eth0"))
        status = json.loads(served.tetrad("status", "--format", "json").out)
        assert [one["name"] for one in status["listeners"]] == [f"[{address}]:{PORT}"]
        ran = cable.servers.do(lambda: served.tetrad("client", "time"))
        assert ran.status == 0, ran
    served.stop()
    clients = {line["client"].rpartition(":")[0] for line in served.events("client.connected")}
    assert clients == {"[fe80::2]", f"[{LOCAL}]"}


def test_an_interface_that_does_not_exist_is_named(prepared: MakeDaemon, cable: Cable) -> None:
    """By the check and by the start."""
    asked = prepared(listen=[{"address": f"{LOCAL}%eth7", "port": PORT}])
    for command, status in {"check": 78, "start": 1}.items():
        ran = cable.servers.do(partial(asked.tetrad, command))
        assert ran.status == status
        assert f"[{LOCAL}%eth7]:{PORT}: there is no network interface eth7\n" in ran.err


def test_an_address_that_does_not_exist_yet_changes_nothing(
    prepared: MakeDaemon, cable: Cable
) -> None:
    """All commands name it, nothing is stopped for it, and it is served as soon as it exists."""
    served = prepared(listen=[{"address": cable.SERVER, "port": PORT}])
    cable.servers.do(served.start)
    served.configure(listen=[{"address": LATE, "port": PORT}])
    for command, status in {"check": 78, "reload": 1, "restart": 1}.items():
        ran = cable.servers.do(partial(served.tetrad, command))
        assert (ran.status, MISSING in ran.err) == (status, True), ran
        assert ANSWER.fullmatch(answer_of(cable, cable.SERVER))
    cable.servers.ip("address", "add", f"{LATE}/24", "dev", "eth0")
    assert served.tetrad("reload").status == 0
    assert ANSWER.fullmatch(answer_of(cable, LATE))
    served.stop()
