"""A client of a real listening socket, as the next version of the daemon gets it."""

from __future__ import annotations

import socket

import pytest

from tetrad.ipc.runtime_config import ListenerConfig
from tetrad.ipc.saved_state import FORMAT
from tetrad.master.connections import Client, Listener


@pytest.fixture
def client() -> Client:
    """Return a client of a listener."""
    config = ListenerConfig(
        index=0,
        name="127.0.0.1:0",
        family="inet",
        address="127.0.0.1",
        port=0,
        service="echo",
        backlog=1,
        reply_terminator="",
        proxy=None,
        tls=None,
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return Client("203.0.113.7:38276", None, "1f-1", Listener(config, listening))


def test_saved_clients_have_this_format(client: Client) -> None:
    """A change of the attributes needs another FORMAT, or a version reads what it cannot."""
    saved = ["address", "connection", "family", "listener", "listener_index", "name"]
    saved += ["proxy_fields", "service"]
    assert (FORMAT, sorted(client.save_state())) == (3, saved)


def test_a_packed_client_of_a_listener_is_unpacked_unchanged(client: Client) -> None:
    """The listener's name has the port that the kernel chose."""
    assert client.listener.startswith("127.0.0.1:")
    assert Client.unpack(client.pack()).save_state() == client.save_state()
