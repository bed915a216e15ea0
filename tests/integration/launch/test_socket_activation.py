"""Socket activation: which listener gets each socket."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tetrad.ipc.runtime_config import ListenerConfig
from tetrad.launch import socket_activation
from tetrad.launch.preflight import StartError
from tetrad.launch.socket_activation import PassedSocket

if TYPE_CHECKING:
    import pathlib


PID = 4711


def tcp(host: str = "127.0.0.1") -> tuple[socket.socket, ListenerConfig]:
    """Return a bound socket and its listener."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.bind((host, 0))
    port = bound.getsockname()[1]
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return bound, listener(name, "inet6" if ":" in host else "inet", host, port)


def listener(name: str, family: str, address: str, port: int) -> ListenerConfig:
    """Return a listener's runtime configuration."""
    return ListenerConfig(
        index=0,
        name=name,
        family=family,
        address=address,
        port=port,
        service="command",
        backlog=7,
        reply_terminator="",
        proxy=None,
        tls=None,
    )


def passed(*sockets: socket.socket, name: str = "tetrad") -> tuple[PassedSocket, ...]:
    """Return duplicates of sockets, as systemd passes them."""
    return tuple(PassedSocket(os.dup(one.fileno()), name) for one in sockets)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_socket_is_found_by_its_address_and_port(host: str) -> None:
    """The order does not matter, and each socket then listens without blocking."""
    (one, first), (other, second) = tcp(host), tcp(host)
    with one, other:
        found = socket_activation.adopt([first, second], passed(other, one))
        assert [s.getsockname() for s in found] == [one.getsockname(), other.getsockname()]
        for adopted in found:
            assert adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            assert adopted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert not os.get_blocking(adopted.fileno())
            adopted.close()


def test_a_unix_socket_is_found_by_its_path(tmp_path: pathlib.Path) -> None:
    """A Unix socket's path identifies it."""
    path = str(tmp_path / "t.sock")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        (found,) = socket_activation.adopt(
            [listener(f"unix:{path}", "unix", path, 0)], passed(bound)
        )
        with found:
            assert found.getsockname() == path


def test_a_socket_is_found_by_the_listeners_index() -> None:
    """A listener with port 0 is identified by its index, as in `listen[0]`."""
    bound, _ = tcp()
    with bound:
        any_port = listener("127.0.0.1:0", "inet", "127.0.0.1", 0)
        (found,) = socket_activation.adopt([any_port], passed(bound, name="listen[0]"))
        with found:
            assert found.getsockname() == bound.getsockname()


def test_a_listener_without_a_socket_is_refused() -> None:
    """The message names both ways out."""
    (one, first), (other, second) = tcp(), tcp()
    with (
        one,
        other,
        pytest.raises(StartError, match=r"no socket for listen\[1\]: add ListenStream="),
    ):
        socket_activation.adopt([first, second], passed(one))


def test_a_socket_without_a_listener_is_refused() -> None:
    """Its clients would wait forever."""
    (one, first), (other, second) = tcp(), tcp()
    with one, other, pytest.raises(StartError, match=second["name"]):
        socket_activation.adopt([first], passed(one, other))


def test_a_datagram_socket_is_refused() -> None:
    """A datagram socket does not match, even if its address and port do."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        wanted = listener(f"127.0.0.1:{port}", "inet", "127.0.0.1", port)
        with pytest.raises(StartError, match="no socket for"):
            socket_activation.adopt([wanted], passed(bound))


def test_a_descriptor_that_is_not_a_socket_is_named() -> None:
    """The message has its number."""
    reads, writes = os.pipe()
    refused = pytest.raises(StartError, match=f"descriptor {reads} .*non-socket")
    with open(reads, "rb"), open(writes, "wb"), refused:
        socket_activation.adopt([], (PassedSocket(reads, ""),))


def test_a_descriptor_that_is_not_open_is_named() -> None:
    """The message has its number."""
    with pytest.raises(StartError, match=r"descriptor 99999 .*bad file descriptor"):
        socket_activation.adopt([], (PassedSocket(99999, ""),))


def test_a_connection_instead_of_a_listener_is_named() -> None:
    """As of a socket unit with Accept=yes: the text says what to set."""
    bound, config = tcp()
    with bound:
        bound.listen()
        with socket.create_connection(bound.getsockname()) as client:
            accepted, _ = bound.accept()
            with accepted, pytest.raises(StartError) as refused:
                socket_activation.adopt([config], passed(accepted))
            client.close()
    assert "is a connection, not a listening socket: set Accept=no in the socket" in str(
        refused.value
    )
