"""Health checks of load balancers: TCP checks that send nothing, and checks with a LOCAL header."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import needs_openssl
from tests.support.jobs import shell
from tests.support.processes import TIMEOUT_SECONDS, until
from tests.support.proxy_headers import LOCAL, version_2
from tests.support.system_programs import needs

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.tls_certificates import Certificates

PROXY = {"trusted": ["127.0.0.1"], "timeout": "1h"}
UNIX = {"address": "unix:p.sock", "proxy": {}}
LISTEN: list[dict[str, Any]] = [{"port": 0, "proxy": PROXY}, UNIX]

CHECKS = 25
"""More than the refusals of one second that have lines of their own."""

CONNECT: dict[str, Callable[[Daemon], Client]] = {
    "tcp": lambda daemon: daemon.connect(),
    "unix": lambda daemon: daemon.connect_to_path("p.sock"),
}
ENDS: dict[str, Callable[[Client], object]] = {
    "close": lambda client: client.close(),
    "half-close": lambda client: client.half_close(),
    "reset": lambda client: client.reset(),
}


@pytest.mark.quick
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("listener", CONNECT)
def test_a_tcp_check_has_a_line_of_the_level_debug(
    shared_daemon: MakeDaemon, listener: str, end: str
) -> None:
    """It connects, says nothing, and leaves; it is counted."""
    served = shared_daemon(listen=LISTEN, log={"level": "debug"})
    before = served.status()["refused"]["proxy"]
    client = CONNECT[listener](served)
    if end == "half-close":  # the others also end before they are accepted
        until(lambda: served.status()["clients"]["now"] == 1, "the connection")
    ENDS[end](client)
    line = served.wait_for("client.refused")
    assert (line["level"], line["reason"], line["check"]) == ("debug", "proxy", True)
    assert line["error"] == "connection closed before the PROXY header"
    status = served.status()
    assert (status["refused"]["proxy"], status["clients"]["now"]) == (before + 1, 0)


def test_tcp_checks_take_no_line_from_invalid_headers(shared_daemon: MakeDaemon) -> None:
    """At the level info they have none, not even one that counts them."""
    served = shared_daemon(listen=LISTEN)
    before = served.status()["refused"]["proxy"]
    for _ in range(CHECKS):
        served.connect().close()
    until(lambda: served.status()["refused"]["proxy"] == before + CHECKS, "the last check")
    client = served.connect()
    client.send(b"time")
    assert client.is_refused()
    assert served.wait_for("client.refused")["error"] == "no PROXY header signature"
    (line,) = served.events("client.refused")
    assert (line["level"], "check" in line) == ("warning", False)


@needs_openssl
def test_a_connection_without_a_handshake_is_not_a_failed_one(
    daemon: MakeDaemon, pki: Certificates
) -> None:
    """Where TLS is expected, too, it is an ordinary end; from a balancer it has no line."""
    tls = pki.tls()
    served = daemon(listen=[tls, tls | {"proxy": PROXY}])
    for end in ("close", "reset"):
        ENDS[end](served.connect())
        ENDS[end](served.connect(1))
        balancer = served.connect(1)
        balancer.send(LOCAL)
        ENDS[end](balancer)
    until(lambda: served.status()["refused"]["proxy"] == 2, "the TCP checks")
    until(lambda: served.status()["accepted"] == 4, "all sessions")
    until(lambda: not served.status()["clients"]["now"], "the end of all sessions")
    served.wait_for("client.disconnected", count=2)
    assert {line["level"] for line in served.events()} == {"info"}
    assert {line["reason"] for line in served.events("client.disconnected")} <= {"eof", "reset"}
    assert not served.events(listener=f"127.0.0.1:{served.ports[1]}")
    assert served.status()["rejected"] == {"access": 0, "tls": 0}


HAPROXY = """
defaults
    mode tcp
    timeout connect 1s
    timeout client 1s
    timeout server 1s
    default-server inter 50ms
listen tetrads
    bind unix@{folder}/h.sock
    {lines}
"""


@contextlib.contextmanager
def checked_by_haproxy(folder: pathlib.Path, servers: list[str]) -> Iterator[None]:
    """Run a HAProxy that checks these servers, but has no clients."""
    lines = "\n    ".join(f"server s{at} {server}" for at, server in enumerate(servers))
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(folder=folder, lines=lines))
    command = ["haproxy", "-db", "-f", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(TIMEOUT_SECONDS)


@needs("haproxy")
@needs_openssl
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_checks_of_haproxy_leave_no_line(
    daemon: MakeDaemon, pki: Certificates, tmp_path: pathlib.Path, listener: str
) -> None:
    """Without a command: a server may have `send-proxy-v2`, or a check of its own without it.

    Without a header, HAProxy resets most connections before the kernel has connected them.
    """
    tls = pki.tls() if listener == "tls" else {}
    served = daemon(listen=[{"port": 0, **tls, "proxy": PROXY}])
    place = f"127.0.0.1:{served.port}"
    servers = [
        f"{place} check",
        f"{place} check send-proxy-v2",
        f"{place} check port {served.port} send-proxy-v2",
        f"{place} check port {served.port} check-send-proxy send-proxy-v2",
    ]
    with checked_by_haproxy(tmp_path, servers):
        until(lambda: served.status()["accepted"] > CHECKS, "some checks")
    until(lambda: not served.status()["clients"]["now"], "the end of all sessions")
    assert [line for line in served.events() if line["event"].startswith("client.")] == []


# What a balancer says without a client


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_check_that_runs_a_program_is_logged_like_other_sessions(
    daemon: MakeDaemon, level: str
) -> None:
    """A balancer, or who can connect as one, hides nothing that has an effect."""
    served = daemon(listen=LISTEN, log={"level": level}, commands={"prog": shell("echo done")})
    balancer = served.connect()
    balancer.send(LOCAL)
    balancer.send(b"progquit")
    assert balancer.read_all() == b"done\nquit"
    served.wait_for("client.disconnected", client=balancer.name, level="info", reason="quit")
    lines = served.events(client=balancer.name, level="info")
    assert [line["event"].removeprefix("client.") for line in lines[-3:]] == [
        "command",
        "command",
        "disconnected",
    ]
    assert [line["command"] for line in lines if "command" in line] == ["prog", "quit"]
    assert all(line["proxy"] == balancer.name and "check" not in line for line in lines)
    connected = served.events("client.connected", client=balancer.name)
    assert [line["level"] for line in connected] == [level]
    assert connected[0]["timestamp"] < lines[-1]["timestamp"]
    assert len({line["connection"] for line in lines}) == 1


def from_unix_peer(served: Daemon, path: bytes, words: bytes) -> bytes:
    """Connect for a client with a path, send commands, and return what comes back."""
    client = served.connect()
    client.send(version_2(("unix", 0), address=path) + words)
    try:
        return client.read_all()
    except ConnectionError:
        return b""


def test_a_client_with_a_path_is_denied_as_its_balancer_is(shared_daemon: MakeDaemon) -> None:
    """At a TCP listener: a header must not be a way around `access.deny`."""
    served = shared_daemon(listen=LISTEN, access={"deny": ["127.0.0.1"]})
    assert from_unix_peer(served, b"/run/app", b"quit") == b""
    line = served.wait_for("client.refused")
    assert (line["reason"], line["rule"]) == ("access", "access.deny[0]")
    assert line["client"] == "unix:/run/app"


def test_clients_with_paths_are_counted_with_their_balancer(shared_daemon: MakeDaemon) -> None:
    """At a Unix listener, whose clients have no address, they are not."""
    served = shared_daemon(listen=LISTEN, limits={"clients_per_source": 1})
    header = version_2(("unix", 0), address=b"/run/app")
    first = served.connect()
    first.send(header)
    first.ask()
    assert from_unix_peer(served, b"/run/b", b"quit") == b""
    assert served.wait_for("client.refused")["reason"] == "clients_per_source"
    for _ in range(2):
        client = served.connect_to_path("p.sock")
        client.send(header)
        client.ask()


def test_a_path_has_no_character_for_a_shell(daemon: MakeDaemon) -> None:
    """Programs get it as TETRAD_CLIENT, and may forget the quotation marks."""
    script = 'eval "echo $TETRAD_CLIENT"'
    served = daemon(listen=LISTEN, commands={"prog": shell(script)})
    path = b"/run/$(touch pwned);`id`|&<>*?[a]{b}~#!'\"\\ %n\n\x1b\xff"
    cleaned = "unix:/run/__touch_pwned___id________a__b_________n___"
    assert from_unix_peer(served, path, b"progquit") == f"{cleaned}\nquit".encode()
    assert served.wait_for("client.disconnected")["client"] == cleaned
