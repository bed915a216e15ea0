"""Socket activation: which environment variables count, and which listener gets each socket."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import run
from tetrad.ipc.runtime_config import ListenerConfig
from tetrad.launch import socket_activation
from tetrad.launch.preflight import StartError
from tetrad.launch.socket_activation import PassedSocket, SocketActivation

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon

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


def test_variables_for_this_process_are_read_and_removed() -> None:
    """Child processes must not inherit them."""
    variables = {
        "LISTEN_PID": f"{PID}",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "tetrad:listen[1]",
        "NOTIFY_SOCKET": "@notify",
        "WATCHDOG_PID": f"{PID}",
        "WATCHDOG_USEC": "30000000",
        "HOME": "/",
    }
    popped = socket_activation.pop_environment(variables, PID)
    assert popped == SocketActivation(
        "@notify", 30.0, (PassedSocket(3, "tetrad"), PassedSocket(4, "listen[1]"))
    )
    assert variables == {"HOME": "/"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
        {"LISTEN_FDS": "2"},
        {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "30000000"},
        {"LISTEN_PID": f"{PID}", "LISTEN_FDS": "many", "WATCHDOG_USEC": "soon"},
    ],
)
def test_variables_for_another_process_are_ignored(variables: dict[str, str]) -> None:
    """Variables for another pid, and invalid ones, are removed without effect."""
    assert socket_activation.pop_environment(variables, PID) == SocketActivation()
    assert not variables


def test_sockets_may_have_no_names() -> None:
    """Older versions of systemd pass none."""
    popped = socket_activation.pop_environment({"LISTEN_PID": f"{PID}", "LISTEN_FDS": "2"}, PID)
    assert popped.sockets == (PassedSocket(3, ""), PassedSocket(4, ""))


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


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_clients_that_connected_before_the_start_are_served(
    prepared: MakeDaemon, host: str
) -> None:
    """Deadlines apply to them: a silent client is disconnected."""
    listening, _ = tcp(host)
    listening.listen()
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
    listening, _ = tcp()
    listening.listen()
    with listening:
        served.configure(listen=[{"port": listening.getsockname()[1]}])
        fd = listening.fileno()
        command = [sys.executable, "-c", START_AS_SYSTEMD_DOES, f"{fd}", served.file]
        ran = run(command, served.environment, pass_fds=[fd])
        assert ran.status == 0, ran.err
        served.adopt(ran.out)
        assert ANSWER.fullmatch(served.connect().ask())


START_AS_SYSTEMD_DOES = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "tetrad", "start", "-c", sys.argv[2]])
"""


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


@pytest.mark.parametrize(
    ("variable", "most", "too_many"),
    [("LISTEN_FDS", "65536", "65537"), ("WATCHDOG_USEC", f"{2**64 - 1}", f"{2**64}")],
)
def test_too_large_numbers_are_ignored(variable: str, most: str, too_many: str) -> None:
    """No service manager sends them, and they would exhaust the memory."""
    for number, is_valid in ((most, True), (too_many, False), ("9" * 5000, False)):
        popped = socket_activation.pop_environment({"LISTEN_PID": f"{PID}", variable: number}, PID)
        assert (popped != SocketActivation()) is is_valid
