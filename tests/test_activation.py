"""What a service manager hands over: who it is meant for, and which listener each socket is."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER
from processes import run
from tetrad.ipc.runtime_config import ListenerConfig
from tetrad.launch import socket_activation
from tetrad.launch.socket_activation import MismatchError, PassedSocket, SocketActivation

if TYPE_CHECKING:
    import pathlib

    from conftest import MakeDaemon

PID = 4711


def tcp(host: str = "127.0.0.1") -> tuple[socket.socket, ListenerConfig]:
    """Return a bound socket, and the listener that it is for."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.bind((host, 0))
    port = bound.getsockname()[1]
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return bound, plan(name, "inet6" if ":" in host else "inet", host, port)


def plan(name: str, family: str, address: str, port: int) -> ListenerConfig:
    """Return a listener's plan."""
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
    """Pass copies of sockets, which are then the receiver's."""
    return tuple(PassedSocket(os.dup(one.fileno()), name) for one in sockets)


def test_what_is_meant_for_this_process_is_taken() -> None:
    """All of it is read, and none of it is left for other processes to mistake for theirs."""
    variables = {
        "LISTEN_PID": f"{PID}",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "tetrad:listen[1]",
        "NOTIFY_SOCKET": "@notify",
        "WATCHDOG_PID": f"{PID}",
        "WATCHDOG_USEC": "30000000",
        "HOME": "/",
    }
    taken = socket_activation.take(variables, PID)
    assert taken == SocketActivation(
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
def test_what_is_meant_for_others_is_not(variables: dict[str, str]) -> None:
    """Variables that somebody else was started with, or that are garbage, say nothing."""
    assert socket_activation.take(variables, PID) == SocketActivation()
    assert not variables


def test_sockets_may_have_no_names() -> None:
    """Older managers pass none."""
    taken = socket_activation.take({"LISTEN_PID": f"{PID}", "LISTEN_FDS": "2"}, PID)
    assert taken.sockets == (PassedSocket(3, ""), PassedSocket(4, ""))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_socket_is_found_by_its_address_and_port(host: str) -> None:
    """In whatever order they come, and each one then listens without blocking."""
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
    """Its name is its path."""
    path = str(tmp_path / "t.sock")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        (found,) = socket_activation.adopt([plan(f"unix:{path}", "unix", path, 0)], passed(bound))
        with found:
            assert found.getsockname() == path


def test_a_socket_is_found_by_the_listeners_place() -> None:
    """A listener at any free port has no other name."""
    bound, _ = tcp()
    with bound:
        anywhere = plan("127.0.0.1:0", "inet", "127.0.0.1", 0)
        (found,) = socket_activation.adopt([anywhere], passed(bound, name="listen[0]"))
        with found:
            assert found.getsockname() == bound.getsockname()


def test_a_listener_without_a_socket_is_refused() -> None:
    """Both ways out are told."""
    (one, first), (other, second) = tcp(), tcp()
    with one, other, pytest.raises(MismatchError, match=r"none for listen\[1\]: add it to"):
        socket_activation.adopt([first, second], passed(one))


def test_a_socket_without_a_listener_is_refused() -> None:
    """Clients would wait there for ever."""
    (one, first), (other, second) = tcp(), tcp()
    with one, other, pytest.raises(MismatchError, match=second["name"]):
        socket_activation.adopt([first], passed(one, other))


def test_what_cannot_be_listened_at_is_refused() -> None:
    """A datagram socket at the right place is none of ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        wanted = plan(f"127.0.0.1:{port}", "inet", "127.0.0.1", port)
        with pytest.raises(MismatchError, match="none for"):
            socket_activation.adopt([wanted], passed(bound))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_waited_for_the_daemon_is_served_and_has_deadlines(
    prepared: MakeDaemon, host: str
) -> None:
    """Clients may come before the daemon: one gets its answer, a silent one has to go."""
    listening, _ = tcp(host)
    listening.listen()
    port = listening.getsockname()[1]
    daemon = prepared(
        listen=[{"address": host, "port": port}], session={"first_command_timeout": "300ms"}
    )
    with listening, socket.create_connection((host, port)) as silent:
        with socket.create_connection((host, port)) as talkative:
            talkative.sendall(b"quit")
            fd = listening.fileno()
            command = [sys.executable, "-c", _AS_A_MANAGER_STARTS_IT, f"{fd}", daemon.file]
            ran = run(command, daemon.environment, pass_fds=[fd])
            assert ran.status == 0, ran.err
            daemon.adopt(ran.out)
            assert talkative.recv(9) == b"quit"
        assert silent.recv(1) == b""
        reasons = {daemon.wait_for("client.disconnected", count=n)["reason"] for n in (1, 2)}
    assert reasons == {"quit", "first_command_timeout"}


def test_sockets_are_kept_while_a_daemon_that_is_stopping_is_waited_for(
    daemon: MakeDaemon,
) -> None:
    """They are for the start that was asked for, not only for its first try."""
    served = daemon(daemon={"stop_timeout": "300ms"})
    served.may_lose = True
    served.connect().say(b"ti")
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    listening, _ = tcp()
    listening.listen()
    with listening:
        served.configure(listen=[{"port": listening.getsockname()[1]}])
        fd = listening.fileno()
        command = [sys.executable, "-c", _AS_A_MANAGER_STARTS_IT, f"{fd}", served.file]
        ran = run(command, served.environment, pass_fds=[fd])
        assert ran.status == 0, ran.err
        served.adopt(ran.out)
        assert ANSWER.fullmatch(served.connect().ask())


_AS_A_MANAGER_STARTS_IT = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "tetrad", "start", "-c", sys.argv[2]])
"""


def test_a_descriptor_that_is_no_socket_is_named() -> None:
    """What was passed is something else, which is told by its number."""
    reads, writes = os.pipe()
    refused = pytest.raises(MismatchError, match=f"descriptor {reads}, .*non-socket")
    with open(reads, "rb"), open(writes, "wb"), refused:
        socket_activation.adopt([], (PassedSocket(reads, ""),))


def test_a_descriptor_that_is_not_open_is_named() -> None:
    """Nothing was passed there."""
    with pytest.raises(MismatchError, match=r"descriptor 99999, .*bad file descriptor"):
        socket_activation.adopt([], (PassedSocket(99999, ""),))


@pytest.mark.parametrize(
    ("variable", "most", "too_many"),
    [("LISTEN_FDS", "65536", "65537"), ("WATCHDOG_USEC", f"{2**64 - 1}", f"{2**64}")],
)
def test_numbers_have_an_end(variable: str, most: str, too_many: str) -> None:
    """What no manager can mean is not reckoned with: it would take all memory, or more."""
    for number, is_taken in ((most, True), (too_many, False), ("9" * 5000, False)):
        taken = socket_activation.take({"LISTEN_PID": f"{PID}", variable: number}, PID)
        assert (taken != SocketActivation()) is is_taken
