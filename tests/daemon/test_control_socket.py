"""The control socket: which users get an answer, and that no connection blocks the service."""

from __future__ import annotations

import json
import os
import pwd
import socket
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.clients import ANSWER, Client
from tests.support.commands import run_here
from tests.support.processes import TIMEOUT_SECONDS, until
from tetrad.ipc import control_client

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon


LISTEN = [{"port": 0}, {"address": "unix:t.sock", "service": "echo"}]


def control(daemon: Daemon) -> Client:
    """Connect to the control socket."""
    return daemon.connect_to_path("control.sock")


def test_a_status_is_one_line_of_json(shared_daemon: MakeDaemon) -> None:
    """Request and answer are one line each; then the connection is closed."""
    served = shared_daemon(listen=LISTEN)
    client = control(served)
    client.send(b"status\n")
    answer = client.read_all()
    assert answer.count(b"\n") == 1
    assert json.loads(answer)["pid"] == served.pid


def test_a_request_may_come_in_pieces(shared_daemon: MakeDaemon) -> None:
    """The line feed ends the request."""
    client = control(shared_daemon(listen=LISTEN))
    for piece in (b"st", b"atus", b"\n"):
        client.send(piece)
    assert json.loads(client.read_all())["state"] == "running"


@pytest.mark.parametrize("request_", [b"help\n", b"\n", b"status \n", b"\xff\n", b"STATUS\n"])
def test_an_unknown_request_is_an_error(shared_daemon: MakeDaemon, request_: bytes) -> None:
    """The answer lists the valid requests."""
    served = shared_daemon(listen=LISTEN)
    client = control(served)
    client.send(request_)
    assert "status" in json.loads(client.read_all())["error"]
    assert served.status()["state"] == "running"


@pytest.mark.parametrize("garbage", [b"x" * 100_000, bytes(range(1, 10)) * 500])
def test_an_invalid_request_is_closed(shared_daemon: MakeDaemon, garbage: bytes) -> None:
    """Too much data without a line feed closes the connection."""
    served = shared_daemon(listen=LISTEN)
    client = control(served)
    try:
        client.send(garbage)
    except ConnectionError:
        pass
    assert client.is_refused()
    assert served.status()["state"] == "running"


def test_a_closed_connection_has_no_effect(daemon: MakeDaemon) -> None:
    """The answer to a closed connection is dropped."""
    served = daemon()
    for request in (b"", b"status\n", b"reload\n", b"sta"):
        client = control(served)
        client.send(request)
        client.close()
    assert served.status()["state"] == "running"
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_peer_that_does_not_read_blocks_no_client(shared_daemon: MakeDaemon) -> None:
    """The master does not wait to send a status that is longer than the socket's buffer."""
    served = shared_daemon(listen=LISTEN)
    clients = [served.connect() for _ in range(40)]
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)
    silent = control(served)
    silent.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    silent.send(b"status\n")
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)
    assert len(served.status()["sessions"]) == 40


def test_silent_connections_do_not_block_the_service(daemon: MakeDaemon) -> None:
    """A hundred silent connections do not block clients, and are closed after a timeout."""
    served = daemon()
    silent = [control(served) for _ in range(100)]
    assert ANSWER.fullmatch(served.connect().ask())
    assert all(client.is_refused() for client in silent)
    assert served.status()["state"] == "running"


class Incomplete(NamedTuple):
    """Connections of the same time to one daemon, none with a complete request."""

    daemon: Daemon
    silent: list[Client]
    unfinished: list[Client]


@pytest.fixture(scope="module")
def incomplete(shared_daemon: MakeDaemon) -> Incomplete:
    """Return connections that wait for their timeout together, so that the tests wait once."""
    served = shared_daemon(listen=[{"port": 0}])
    silent = [control(served) for _ in range(10)]
    unfinished = [control(served) for _ in range(3)]
    for client in unfinished:
        client.send(b"status")
    return Incomplete(served, silent, unfinished)


def test_a_request_is_answered_beside_silent_connections(incomplete: Incomplete) -> None:
    """Silent connections do not block a request."""
    assert incomplete.daemon.status()["state"] == "running"
    assert all(client.is_refused() for client in incomplete.silent)


def test_a_request_without_a_line_feed_is_closed(incomplete: Incomplete) -> None:
    """After a timeout."""
    assert incomplete.unfinished[0].is_refused()
    assert incomplete.daemon.status()["state"] == "running"


def test_an_incomplete_request_is_closed(incomplete: Incomplete) -> None:
    """After a timeout, or at once at the end of the input."""
    waiting, ended = incomplete.unfinished[1], control(incomplete.daemon)
    ended.send(b"status")
    ended.half_close()
    assert ended.read_all() == b""
    assert waiting.read_all() == b""


def test_the_kernel_names_the_master_as_the_peer(daemon: MakeDaemon) -> None:
    """Before and after an upgrade: a command relies on it to find the process."""
    served = daemon()
    path = os.path.join(served.folder, "control.sock")
    assert control_client.peer(path) == (served.pid, os.geteuid())
    assert served.tetrad("upgrade").status == 0
    assert control_client.peer(path) == (served.pid, os.geteuid())


def test_another_user_is_refused(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """Every user can connect; the credentials of the kernel decide, and the answer is why."""
    served = daemon(folder=nobodys_folder)
    for command in ("status", "reload", "upgrade", "stop"):
        ran = served.tetrad(command, user="nobody", group="nogroup", extra_groups=[])
        assert (ran.status, ran.out) == (4, ""), (command, ran)
        assert "only root and the daemon's user may" in ran.err or (
            f"permission denied: user id {pwd.getpwnam('nobody').pw_uid} is not root or the"
            " daemon's user (id 0), and daemon.control_group is not set" in ran.err
        ), (command, ran)
    assert served.status()["state"] == "running"


def test_the_user_of_the_daemon_is_answered(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """daemon.user has the same permissions as root."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"})
    ran = served.tetrad("status", user="nobody", group="nogroup", extra_groups=[])
    assert ran.status == 0
    assert served.status()["state"] == "running"


def test_status_counts(daemon: MakeDaemon) -> None:
    """Current, most, accepted and refused clients and sessions are counted."""
    served = daemon(limits={"clients": 2})
    clients = [served.served(), served.served()]
    assert served.connect().is_refused()
    clients.pop().quit()
    until(lambda: served.status()["clients"]["now"] == 1, "one client")
    status = served.status()
    assert status["clients"] == {"now": 1, "peak": 2, "limit": 2}
    assert status["accepted"] == 2
    assert {reason for reason, count in status["refused"].items() if count} == {"clients"}
    assert [one["client"] for one in status["sessions"]] == [clients[0].name]
    assert 0 <= status["uptime"] < TIMEOUT_SECONDS


def test_status_is_text_by_default(shared_daemon: MakeDaemon) -> None:
    """The text has the main facts of the JSON."""
    served = shared_daemon(listen=LISTEN)
    ran = run_here(served, "status")
    listening = (f"127.0.0.1:{served.port} (command)", f"unix:{served.folder}/t.sock (echo)")
    words = (f"pid {served.pid}", served.file, served.log_file, *listening)
    assert ran.status == 0
    assert [word for word in words if word not in ran.out] == []
