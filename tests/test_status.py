"""`tetrad status`, for people and for programs, and the socket that it asks."""

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

from daemons import TIMEOUT_SECONDS, stopped, until

if TYPE_CHECKING:
    from conftest import MakeDaemon
    from daemons import Daemon, Ran

MONITORING_SECONDS = 10.0
"""How long those who watch over many daemons wait for one answer."""


def control_of(daemon: Daemon) -> socket.socket:
    """Connect to a daemon's control socket."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(os.path.join(daemon.folder, "control.sock"))
    peer.settimeout(TIMEOUT_SECONDS)
    return peer


def answer(daemon: Daemon, request: bytes) -> bytes:
    """Send a request to the control socket, and return all that comes back."""
    with control_of(daemon) as peer, contextlib.suppress(ConnectionError):
        peer.sendall(request)
        return b"".join(iter(lambda: peer.recv(65536), b""))
    return b""


def valid(daemon: Daemon, status: int) -> dict[str, Any]:
    """Return what --json says, checked against --schema; the exit status has to be this."""
    ran = daemon.tetrad("status", "--json")
    assert ran.status == status, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    jsonschema.validate(document, json.loads(daemon.tetrad("status", "--schema").out))
    return document


def row(ran: Ran, name: str) -> str:
    """Return what stands behind a word in the text for people."""
    return next(line for line in ran.out.splitlines() if line.split()[0] == name).split(None, 1)[1]


def test_people_read_how_the_daemon_is(daemon: MakeDaemon) -> None:
    """State, start, file, listeners, clients, refusals by reason and the log have their lines."""
    served = daemon(
        listen=[{"port": 0}, {"port": 0, "service": "echo"}, {"address": "unix:t.sock"}],
        access={"deny": ["127.0.0.9"]},
        limits={"clients": 10, "clients_per_source": 2},
    )
    served.served(source="127.0.0.3").quit()
    until(lambda: served.status()["clients"]["now"] == 0, "its end")
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
        rf"  handlers   3 now, 0 waiting, 0 lost\n"
        rf"  accepted   4\n"
        rf"  refused    2 access, 1 clients_per_source\n"
        rf"  log        {served.log_file}: \d+ written, 0 lost\n"
        rf"  top        127\.0\.0\.2 \(2\)\n",
        ran.out,
    )


def test_the_most_clients_at_once_are_remembered(daemon: MakeDaemon) -> None:
    """The peak stays when clients leave, and does not grow when others take their places."""
    served = daemon()
    for client in [served.served() for _ in range(3)]:
        client.quit()
    until(lambda: row(served.tetrad("status"), "clients").startswith("0 now, 3 at most"), "0 now")
    served.served()
    assert row(served.tetrad("status"), "clients").startswith("1 now, 3 at most")


def test_programs_read_what_the_schema_promises(daemon: MakeDaemon) -> None:
    """The document of a busy daemon is valid, and has the facts."""
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


def test_the_schema_refuses_what_is_no_status(prepared: MakeDaemon) -> None:
    """The schema is a schema, and not one that everything satisfies."""
    schema = json.loads(prepared().tetrad("status", "--schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    wrongs: list[object] = [{}, {"state": "running"}, {"state": "asleep"}, [], "running"]
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_sessions_are_listed_with_their_handlers(daemon: MakeDaemon) -> None:
    """Each session has its connection, peer, service, age and pid, as in the log and in /proc."""
    served = daemon(listen=[{"port": 0}, {"port": 0, "service": "echo"}])
    clients = [served.served(), served.connect(1), served.served(source="127.0.0.2")]
    lines = [served.wait_for("client.connected", client=client.name) for client in clients]
    head, *rows = served.tetrad("status", "--clients").out.splitlines()
    assert head.split() == ["CONNECTION", "CLIENT", "SERVICE", "AGE", "PID"]
    assert {tuple(words[:3]) for words in map(str.split, rows)} == {
        (line["connection"], line["client"], line["service"]) for line in lines
    }
    assert {int(line.split()[4]) for line in rows} == set(served.handlers)
    assert {line["pid"] for line in lines} == set(served.handlers)


def test_the_oldest_session_stands_first(daemon: MakeDaemon) -> None:
    """Sessions are listed in the order in which they came."""
    served = daemon()
    names = [served.served().name for _ in range(4)]
    rows = served.tetrad("status", "--clients").out.splitlines()[1:]
    assert [line.split()[1] for line in rows] == names


def test_a_session_that_has_ended_is_not_listed(daemon: MakeDaemon) -> None:
    """Who leaves is gone from the list, and the others stay."""
    served = daemon()
    stays, leaves = served.served(), served.served()
    leaves.quit()
    until(lambda: len(served.status()["sessions"]) == 1, "one session")
    assert served.status()["sessions"][0]["client"] == stays.name


@pytest.mark.parametrize(("left", "status", "state"), [("", 3, "stopped"), ("1\n", 1, "dead")])
def test_a_daemon_that_is_not_there(
    prepared: MakeDaemon, left: str, status: int, state: str
) -> None:
    """Not running is 3, and a pidfile left behind is 1, in words and in a valid document."""
    daemon = prepared()
    if left:
        with open(daemon.pidfile, "w", encoding="ascii") as file:
            file.write(left)
    text = daemon.tetrad("status")
    said = {"stopped": "tetrad: not running\n", "dead": "tetrad: dead, but its pidfile is left\n"}
    assert text == (status, said[state], "")
    assert valid(daemon, status) == {"state": state}
    assert daemon.tetrad("status", "--clients") == text


def test_a_daemon_that_was_killed_is_dead(daemon: MakeDaemon) -> None:
    """After SIGKILL the pidfile is left, and is not believed."""
    served = daemon()
    served.signal(9)
    assert served.is_gone()
    assert served.tetrad("status").status == 1
    assert valid(served, 1) == {"state": "dead"}


def test_a_daemon_that_stands_still_is_unknown(daemon: MakeDaemon) -> None:
    """No answer is 4, long before monitoring would give up, and says that the daemon is there."""
    served = daemon()
    with stopped(served.pid):
        before = time.monotonic()
        ran = served.tetrad("status")
        seconds = time.monotonic() - before
    assert (ran.status, ran.out, seconds < MONITORING_SECONDS) == (4, "", True)
    assert f"running (pid {served.pid}), but no word from it" in ran.err
    assert served.tetrad("status").status == 0


def test_an_unknown_state_is_valid(daemon: MakeDaemon) -> None:
    """A program is told that nothing is known, and why."""
    served = daemon()
    os.unlink(os.path.join(served.folder, "control.sock"))
    document = valid(served, 4)
    assert document["state"] == "unknown"
    assert "no such file" in document["reason"]


def test_what_is_no_pidfile_makes_it_unknown(prepared: MakeDaemon) -> None:
    """A path that leads to somebody's text says nothing about the daemon."""
    daemon = prepared()
    with open(daemon.pidfile, "w", encoding="ascii") as file:
        file.write("dear diary,\n" * 9)
    ran = daemon.tetrad("status")
    assert (ran.status, ran.out) == (4, "")
    assert daemon.pidfile in ran.err
    document = valid(daemon, 4)
    assert (document["state"], daemon.pidfile in document["reason"]) == ("unknown", True)


def test_a_daemon_on_its_way_out_says_so(daemon: MakeDaemon) -> None:
    """While sessions end, the state is `stopping`, and the exit status that of a running one."""
    served = daemon(daemon={"stop_timeout": "20s"})
    served.served().send(b"ti")
    served.signal(15)
    with stopped(served.handlers[0]):
        status = until(lambda: valid(served, 0), "a status")
    assert status["state"] in {"running", "stopping"}


def test_garbage_does_no_harm(daemon: MakeDaemon) -> None:
    """What is no request is answered with the requests, or not at all."""
    served = daemon()
    for garbage in (b"\n", b"help\n", b"STATUS\n", b"status now\n", b"\xff\0\x1b[2J\n"):
        assert set(json.loads(answer(served, garbage))) == {"error"}
    for endless in (b"x" * 65, b"source " + b"1" * 65536, os.urandom(4096).replace(b"\n", b"")):
        assert answer(served, endless) == b""
    assert valid(served, 0)["clients"]["now"] == 0


def test_a_request_may_come_in_pieces(daemon: MakeDaemon) -> None:
    """A request ends at its line's end, not where a packet does; what follows is ignored."""
    served = daemon()
    with control_of(served) as peer:
        for piece in (b"sta", b"t", b"us\nreload\n"):
            peer.sendall(piece)
        document = json.loads(b"".join(iter(lambda: peer.recv(65536), b"")))
    assert document["pid"] == served.pid


def test_an_unfinished_request_is_let_go(daemon: MakeDaemon) -> None:
    """Who does not end his line is hung up on, after an end of file at once."""
    served = daemon()
    with control_of(served) as waiting, control_of(served) as ended:
        waiting.sendall(b"status")
        ended.sendall(b"status")
        ended.shutdown(socket.SHUT_WR)
        assert ended.recv(1) == b""
        assert waiting.recv(1) == b""


def test_a_request_without_end_is_not_waited_for(daemon: MakeDaemon) -> None:
    """What is too long for a request is hung up on before others have run out of time."""
    served = daemon()
    with control_of(served) as silent, control_of(served) as endless:
        endless.sendall(b"x" * 65)
        assert select.select([silent, endless], [], [], TIMEOUT_SECONDS)[0] == [endless]


def test_a_hundred_silent_operators_keep_nobody_out(daemon: MakeDaemon) -> None:
    """Connections that say nothing make room for those that ask, and are hung up on in the end."""
    served = daemon()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(control_of(served)) for _ in range(100)]
        assert [valid(served, 0)["pid"] for _ in range(3)] == [served.pid] * 3
        served.served()
        for peer in crowd:
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""
    assert valid(served, 0)["clients"]["now"] == 1


def test_who_does_not_read_his_status_harms_nobody(daemon: MakeDaemon) -> None:
    """An operator who never takes the answer is given up, and others are answered meanwhile."""
    served = daemon()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(control_of(served)).sendall(b"status\n")
        assert valid(served, 0)["pid"] == served.pid
    until(lambda: len(served.processes) == 2, "an end of all who were to answer")


def test_the_outlook_of_an_address(daemon: MakeDaemon) -> None:
    """The lists and the limits of a source are told as they are now."""
    served = daemon(access={"allow": ["127.0.0.0/8"]}, limits={"clients_per_source": 3})
    served.served()
    here = {"127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1"}
    for address in (*here, "127.0.0.2", "10.0.0.1", "::1", "255.255.255.255"):
        outlook = json.loads(answer(served, f"source {address}\n".encode()))
        assert outlook["access"] is (address in {*here, "127.0.0.2"})
        assert (outlook["clients"], outlook["clients_limit"]) == (1, 1000)
        assert (outlook["from_source"], outlook["from_source_limit"]) == (address in here, 3)
        assert outlook["wait"] == 0


def test_what_is_no_address_has_no_outlook(daemon: MakeDaemon) -> None:
    """Names, networks, garbage and nothing are not taken for an address."""
    served = daemon()
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
