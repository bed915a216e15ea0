"""`tetrad status` of real daemons, and requests to their control socket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import time
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tests.support.commands import run_here
from tests.support.daemons import TIMEOUT_SECONDS, stopped, until
from tetrad.ipc import control_client
from tetrad.master import control_server

if TYPE_CHECKING:
    from tests.support.daemons import Daemon, Ran
    from tests.support.fixtures import MakeDaemon

LISTEN = [{"port": 0}, {"port": 0, "service": "echo"}]

MONITORING_SECONDS = 10.0
"""A usual timeout of monitoring systems for one check."""


def control_of(daemon: Daemon) -> socket.socket:
    """Connect to a daemon's control socket."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(os.path.join(daemon.folder, "control.sock"))
    peer.settimeout(TIMEOUT_SECONDS)
    return peer


def answer(daemon: Daemon, request: bytes) -> bytes:
    """Send a request to the control socket and return the whole answer."""
    with control_of(daemon) as peer, contextlib.suppress(ConnectionError):
        peer.sendall(request)
        return b"".join(iter(lambda: peer.recv(65536), b""))
    return b""


def valid(daemon: Daemon, status: int) -> dict[str, Any]:
    """Return the output of --json, validated with --schema; check the exit status."""
    ran = run_here(daemon, "status", "--json")
    assert ran.status == status, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    jsonschema.validate(document, json.loads(run_here(daemon, "status", "--schema").out))
    return document


def row(ran: Ran, name: str) -> str:
    """Return the value of a name in the text."""
    return next(line for line in ran.out.splitlines() if line.split()[0] == name).split(None, 1)[1]


@pytest.mark.quick
def test_the_text_has_all_facts(daemon: MakeDaemon) -> None:
    """State, start, file, listeners, clients, refusals by reason and the log each have a line."""
    served = daemon(
        listen=[{"port": 0}, {"port": 0, "service": "echo"}, {"address": "unix:t.sock"}],
        access={"deny": ["127.0.0.9"]},
        limits={"clients": 10, "clients_per_source": 2},
    )
    served.served(source="127.0.0.3").quit()
    until(lambda: served.status()["clients"]["now"] == 0, "the end of the session")
    for source in ("127.0.0.2", "127.0.0.2", "127.0.0.4"):
        served.served(source=source)
    for source in ("127.0.0.2", "127.0.0.9", "127.0.0.9"):
        assert served.connect(source=source).is_refused()
    ran = served.tetrad("status")
    assert (ran.status, ran.err) == (0, "")
    assert re.fullmatch(
        rf"tetrad \S+: running \(pid {served.pid}\)\n"
        rf"  since      \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \S+, \S+ ago\n"
        rf"  config     {served.file}\n"
        rf"  listening  127\.0\.0\.1:{served.ports[0]} \(command\)\n"
        rf"  listening  127\.0\.0\.1:{served.ports[1]} \(echo\)\n"
        rf"  listening  unix:{served.folder}/t\.sock \(command\)\n"
        rf"  clients    3 now, 3 at most, 10 allowed\n"
        rf"  handlers   3 now, 0 idle, 0 lost\n"
        rf"  accepted   4\n"
        rf"  refused    2 access, 1 clients_per_source\n"
        rf"  log        {served.log_file}: \d+ written, 0 lost\n"
        rf"  top        127\.0\.0\.2 \(2\)\n",
        ran.out,
    )


def test_the_peak_of_clients_is_kept(daemon: MakeDaemon) -> None:
    """The peak does not fall when clients leave, nor grow when others replace them."""
    served = daemon()
    for client in [served.served() for _ in range(3)]:
        client.quit()
    until(
        lambda: row(run_here(served, "status"), "clients").startswith("0 now, 3 at most"), "0 now"
    )
    served.served()
    assert row(run_here(served, "status"), "clients").startswith("1 now, 3 at most")


@pytest.mark.quick
def test_json_conforms_to_the_schema(daemon: MakeDaemon) -> None:
    """The document of a daemon with clients is valid, and its values are right."""
    served = daemon(
        listen=[{"port": 0}, {"address": "unix:t.sock"}], access={"deny": ["127.0.0.9"]}
    )
    served.served()
    served.connect_to_path("t.sock").ask()
    assert served.connect(source="127.0.0.9").is_refused()
    served.wait_for("client.refused")
    status = valid(served, 0)
    assert (status["state"], status["pid"]) == ("running", served.pid)
    assert abs(status["started"] + status["uptime"] - time.time()) < TIMEOUT_SECONDS
    assert [listener["port"] for listener in status["listeners"]] == [served.port, None]
    assert status["clients"] == {"now": 2, "peak": 2, "limit": 1000}
    assert (status["accepted"], status["refused"]["access"]) == (2, 1)
    assert sum(status["refused"].values()) == 1
    assert status["log"]["logger"] == served.logger


def test_the_schema_rejects_other_documents(prepared: MakeDaemon) -> None:
    """The schema is valid, and does not accept every document."""
    schema = json.loads(run_here(prepared(), "status", "--schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    invalid: list[object] = [{}, {"state": "running"}, {"state": "asleep"}, [], "running"]
    for document in invalid:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, schema)


@pytest.mark.quick
def test_sessions_are_listed_with_their_handlers(shared_daemon: MakeDaemon) -> None:
    """Connection, client, service and pid are those of the log and of /proc."""
    served = shared_daemon(listen=LISTEN)
    clients = [served.served(), served.connect(1), served.served(source="127.0.0.2")]
    lines = [served.wait_for("client.connected", client=client.name) for client in clients]
    head, *rows = run_here(served, "status", "--clients").out.splitlines()
    assert head.split() == ["CONNECTION", "CLIENT", "SERVICE", "AGE", "PID"]
    assert {tuple(words[:3]) for words in map(str.split, rows)} == {
        (line["connection"], line["client"], line["service"]) for line in lines
    }
    assert {int(line.split()[4]) for line in rows} == set(served.handlers)
    assert {line["pid"] for line in lines} == set(served.handlers)


def test_the_oldest_session_is_first(shared_daemon: MakeDaemon) -> None:
    """Sessions are sorted by age."""
    served = shared_daemon(listen=LISTEN)
    names = [served.served().name for _ in range(4)]
    rows = run_here(served, "status", "--clients").out.splitlines()[1:]
    assert [line.split()[1] for line in rows] == names


def test_a_session_that_has_ended_is_not_listed(shared_daemon: MakeDaemon) -> None:
    """After a client has quit, only the other one is listed."""
    served = shared_daemon(listen=LISTEN)
    staying, quitting = served.served(), served.served()
    quitting.quit()
    until(lambda: len(served.status()["sessions"]) == 1, "one session")
    assert served.status()["sessions"][0]["client"] == staying.name


@pytest.mark.quick
@pytest.mark.parametrize(("left", "status", "state"), [("", 3, "stopped"), ("1\n", 1, "dead")])
def test_a_daemon_that_does_not_run(
    prepared: MakeDaemon, left: str, status: int, state: str
) -> None:
    """The exit status is 3, or 1 if there is a pidfile; text and JSON have the state."""
    daemon = prepared()
    if left:
        with open(daemon.pidfile, "w", encoding="ascii") as file:
            file.write(left)
    text = daemon.tetrad("status")
    dead = f"tetrad: dead, but the pidfile exists ({daemon.pidfile})\n"
    expected = {"stopped": daemon.not_running, "dead": dead}[state]
    assert text == (status, expected, "")
    reason = expected.removeprefix("tetrad: ").rstrip()
    assert valid(daemon, status) == {"state": state, "reason": reason}
    assert daemon.tetrad("status", "--clients") == text


def test_a_daemon_that_was_killed_is_dead(daemon: MakeDaemon) -> None:
    """After SIGKILL the pidfile still exists, but is not locked."""
    served = daemon()
    served.signal(9)
    assert served.is_gone()
    assert served.tetrad("status").status == 1
    assert valid(served, 1)["state"] == "dead"


def test_a_stopped_process_is_unknown(
    shared_daemon: MakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is 4, before a monitoring system times out, and the message has the pid."""
    served = shared_daemon(listen=LISTEN)
    assert control_client.ask.__defaults__ == (control_client.ANSWER_TIMEOUT_SECONDS,)
    assert control_client.ANSWER_TIMEOUT_SECONDS < MONITORING_SECONDS
    monkeypatch.setattr(control_client.ask, "__defaults__", (1.0,))
    with stopped(served.pid):
        before = time.monotonic()
        ran = run_here(served, "status")
        seconds = time.monotonic() - before
    assert (ran.status, ran.out, seconds < MONITORING_SECONDS) == (4, "", True)
    assert f"running (pid {served.pid}), but not responding" in ran.err
    assert "no answer within 1 s" in ran.err
    monkeypatch.undo()
    assert run_here(served, "status").status == 0


def test_an_unknown_state_is_valid(daemon: MakeDaemon) -> None:
    """The document has the state `unknown` and the reason."""
    served = daemon()
    os.unlink(os.path.join(served.folder, "control.sock"))
    document = valid(served, 4)
    assert document["state"] == "unknown"
    assert "no such file" in document["reason"]


def test_another_file_as_pidfile_is_unknown(prepared: MakeDaemon) -> None:
    """A file with other contents is not a pidfile, so the state is not known."""
    daemon = prepared()
    with open(daemon.pidfile, "w", encoding="ascii") as file:
        file.write("not a pidfile\n" * 9)
    ran = run_here(daemon, "status")
    assert (ran.status, ran.out) == (4, "")
    assert daemon.pidfile in ran.err
    document = valid(daemon, 4)
    assert (document["state"], daemon.pidfile in document["reason"]) == ("unknown", True)


def test_a_stopping_daemon_has_that_state(daemon: MakeDaemon) -> None:
    """The state is `stopping`, and the exit status is that of a running daemon."""
    served = daemon(daemon={"stop_timeout": "20s"})
    served.served().send(b"ti")
    served.signal(15)
    with stopped(served.handlers[0]):
        status = until(lambda: valid(served, 0), "a status")
    assert status["state"] in {"running", "stopping"}


def test_invalid_requests_do_no_harm(shared_daemon: MakeDaemon) -> None:
    """The answer to an invalid request lists the requests; one without an end gets no answer."""
    served = shared_daemon(listen=LISTEN)
    for garbage in (b"\n", b"help\n", b"STATUS\n", b"status now\n", b"\xff\0\x1b[2J\n"):
        assert set(json.loads(answer(served, garbage))) == {"error"}
    for endless in (b"x" * 65, b"source " + b"1" * 65536, os.urandom(4096).replace(b"\n", b"")):
        assert answer(served, endless) == b""
    assert valid(served, 0)["clients"]["now"] == 0


def test_a_request_may_come_in_pieces(shared_daemon: MakeDaemon) -> None:
    """A request ends with its line feed; data after it is ignored."""
    served = shared_daemon(listen=LISTEN)
    with control_of(served) as peer:
        for piece in (b"sta", b"t", b"us\nreload\n"):
            peer.sendall(piece)
        document = json.loads(b"".join(iter(lambda: peer.recv(65536), b"")))
    assert document["pid"] == served.pid


def test_a_too_long_request_is_closed_at_once(shared_daemon: MakeDaemon) -> None:
    """It is closed before a silent connection has timed out."""
    served = shared_daemon(listen=LISTEN)
    with control_of(served) as silent, control_of(served) as endless:
        endless.sendall(b"x" * (control_server.MAX_REQUEST_BYTES + 1))
        assert select.select([silent, endless], [], [], TIMEOUT_SECONDS)[0] == [endless]


def test_a_hundred_silent_connections_block_no_request(shared_daemon: MakeDaemon) -> None:
    """Silent connections do not block requests or clients, and are closed after a timeout."""
    served = shared_daemon(listen=LISTEN)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(control_of(served)) for _ in range(100)]
        assert [valid(served, 0)["pid"] for _ in range(3)] == [served.pid] * 3
        served.served()
        for peer in silent:
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""
    assert valid(served, 0)["clients"]["now"] == 1


def test_an_answer_that_is_not_read_blocks_no_request(shared_daemon: MakeDaemon) -> None:
    """The process that sends the answer gives up, and other requests are answered meanwhile."""
    served = shared_daemon(listen=LISTEN)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(control_of(served)).sendall(b"status\n")
        assert valid(served, 0)["pid"] == served.pid
    until(lambda: len(served.processes) == 2, "the end of the processes that send answers")


def test_the_report_about_an_address(daemon: MakeDaemon) -> None:
    """The answer has the verdict of the access lists, the limits and the current counts."""
    served = daemon(access={"allow": ["127.0.0.0/8"]}, limits={"clients_per_source": 3})
    served.served()
    here = {"127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1"}
    for address in (*here, "127.0.0.2", "10.0.0.1", "::1", "255.255.255.255"):
        report = json.loads(answer(served, f"source {address}\n".encode()))
        assert report["access"] is (address in {*here, "127.0.0.2"})
        assert (report["clients"], report["clients_limit"]) == (1, 1000)
        assert (report["from_source"], report["from_source_limit"]) == (address in here, 3)
        assert report["wait"] == 0


def test_an_invalid_address_has_no_report(shared_daemon: MakeDaemon) -> None:
    """Names, networks, garbage and nothing are not addresses."""
    served = shared_daemon(listen=LISTEN)
    for wrong in (
        b"",
        b"x",
        b"127.1",
        b"127.0.0.1/8",
        b"127.0.0.1\0",
        b"::1%lo",
        b"\xff",
        b"1" * 50,
    ):
        assert json.loads(answer(served, b"source " + wrong + b"\n")) == {"error": "not an address"}
    assert valid(served, 0)["state"] == "running"
