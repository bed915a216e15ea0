"""Networks as they are found: ports, kinds of addresses and of sockets, urgent data."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import run
from tests.support.socket_activation import START_AS_SYSTEMD_DOES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon
    from tests.support.network_namespaces import Network

PORT = 65000

_IPPROTO_MPTCP = 262


def set_in(network: Network, **settings: str) -> None:
    """Set variables of sysctl(8) below `net` in a namespace; `__` is a dot."""

    def write() -> None:
        for name, value in settings.items():
            path = f"/proc/sys/net/{name.replace('__', '/')}"
            with open(path, "w", encoding="ascii") as file:
                file.write(value)

    network.do(write)


def only_port(network: Network) -> None:
    """Leave one port for the clients of a namespace, which is that of the daemon."""
    set_in(network, ipv4__ip_local_port_range=f"{PORT} {PORT}")


def test_a_client_that_is_connected_to_itself_is_refused(
    prepared: MakeDaemon, network: Network
) -> None:
    """The kernel may choose the port of a stopped daemon for its client."""
    only_port(network)
    asked = prepared()
    words = ("client", "--host", "127.0.0.1", "--port", f"{PORT}", "time")
    ran = network.do(lambda: asked.tetrad(*words))
    expected = f"tetrad: 127.0.0.1:{PORT}: connection refused\n"
    assert (ran.status, ran.out, ran.err) == (1, "", expected)


@contextlib.contextmanager
def connection_from_port() -> Iterator[None]:
    """Connect from the only port that there is."""
    with (
        socket.create_server(("127.0.0.1", 1234)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getsockname()[1] == PORT
        yield


def test_a_port_that_a_connection_has_is_named(prepared: MakeDaemon, network: Network) -> None:
    """Nothing listens there, so a list of listeners would not show it."""
    only_port(network)
    asked = prepared(listen=[{"port": PORT}])
    stack = contextlib.ExitStack()
    network.do(lambda: stack.enter_context(connection_from_port()))
    with stack:
        ran = network.do(lambda: asked.tetrad("start"))
    hint = "another program listens there, or connects from there (ss -tanp shows it)"
    expected = f"tetrad: 127.0.0.1:{PORT}: address already in use; {hint}\n"
    assert (ran.status, ran.err) == (1, expected)


def test_an_ordinary_user_has_port_80_where_the_kernel_allows_it(
    prepared: MakeDaemon, network: Network, nobodys_folder: str
) -> None:
    """As in containers of Docker."""
    set_in(network, ipv4__ip_unprivileged_port_start="0")
    nobody = pwd.getpwnam("nobody")
    ids = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    served = prepared(folder=nobodys_folder, listen=[{"port": 80}])
    os.chown(os.path.join(nobodys_folder, "home"), nobody.pw_uid, nobody.pw_gid)
    ran = network.do(lambda: served.tetrad("start", **ids))
    assert ran.status == 0, ran.err
    served.adopt(ran.out)
    served.configure(listen=[{"port": 81}])
    ran = network.do(lambda: served.tetrad("reload", **ids))
    assert (ran.status, "listen[0].port: 80 -> 81" in ran.out) == (0, True), ran


def test_a_dual_stack_listener_serves_ipv4_where_ipv6_is_disabled(
    prepared: MakeDaemon, network: Network
) -> None:
    """An address of IPv6 alone is refused."""
    set_in(network, ipv6__conf__all__disable_ipv6="1")
    served = prepared(listen=[{"address": "::", "port": PORT}])
    ran = network.do(lambda: served.tetrad("start"))
    assert ran.status == 0, ran.err
    served.adopt(ran.out)
    assert ANSWER.fullmatch(network.do(served.connect).ask())
    served.configure(listen=[{"address": "::1", "port": PORT}])
    ran = network.do(lambda: served.tetrad("check"))
    assert "[::1]:65000: cannot assign requested address" in ran.err


def test_a_link_local_client_is_admitted_by_its_address(
    prepared: MakeDaemon, network: Network
) -> None:
    """Its interface is no part of the address: in lists, limits, and the log."""
    network.ip("address", "add", "fe80::1/64", "dev", "lo", "nodad")
    access = {"allow": ["fe80::1"]}
    listen = [{"address": "::", "port": PORT}]
    served = prepared(listen=listen, access=access, limits={"clients_per_source": 1})
    ran = network.do(lambda: served.tetrad("start"))
    assert ran.status == 0, ran.err
    served.adopt(ran.out)
    first, second = (network.do(lambda: served.connect(host="fe80::1%lo")) for _ in range(2))
    assert ANSWER.fullmatch(first.ask())
    assert second.is_refused()
    assert served.wait_for("client.refused")["reason"] == "clients_per_source"
    assert served.wait_for("client.connected")["client"].startswith("[fe80::1]:")


def test_a_passed_socket_may_be_of_multipath_tcp(prepared: MakeDaemon) -> None:
    """It lacks one option of TCP; its clients, of either protocol, are served by their deadlines.

    systemd passes one for SocketProtocol=mptcp.
    """
    try:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, _IPPROTO_MPTCP)
    except OSError:
        pytest.skip("this kernel has no Multipath TCP")
    with listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        session = {"first_command_timeout": "300ms"}
        served = prepared(listen=[{"port": port}], session=session)
        command = [sys.executable, "-c", START_AS_SYSTEMD_DOES, f"{listening.fileno()}"]
        fds = [listening.fileno()]
        ran = run([*command, served.file], served.environment, pass_fds=fds)
    assert ran.status == 0, ran.err
    served.adopt(ran.out)
    for protocol in (0, _IPPROTO_MPTCP):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as client:
            client.connect(("127.0.0.1", port))
            client.sendall(b"quit")
            assert client.recv(9) == b"quit"
    began = time.monotonic()
    assert served.connect().read_all() == b""
    assert time.monotonic() - began < 5


def test_urgent_data_is_no_order_of_the_master(shared_daemon: MakeDaemon) -> None:
    """The urgent byte is not in the stream. SIGURG is how a handler learns of a denial."""
    served = shared_daemon()
    client = served.connect()
    assert ANSWER.fullmatch(client.ask())
    client.socket.send(b"!", socket.MSG_OOB)
    assert ANSWER.fullmatch(client.ask())
    client.socket.send(b"!", socket.MSG_OOB)
    client.send(b"quit")
    assert client.read_all() == b"quit"
    assert served.wait_for("client.disconnected")["reason"] == "quit"
