"""The log of a daemon: one event a line, complete and ASCII, whatever clients send."""

from __future__ import annotations

import collections
import concurrent.futures
import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER, ANSWER_BYTES
from tests.support.processes import until

if TYPE_CHECKING:
    import pathlib

    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import MakeDaemon

LISTEN = [{"port": 0}, {"port": 0, "service": "echo"}]
ECHO = 1
"""The index of a listener in LISTEN."""

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LEVELS = {
    "server.started": "info",
    "server.listening": "info",
    "server.stopping": "info",
    "server.stopped": "info",
    "client.connected": "info",
    "client.command": "info",
    "client.invalid": "warning",
    "client.disconnected": "info",
}
GARBAGE = [
    b'"},{"event":"server.stopped"}\n',
    b"\x1b[31m\x07\x00",
    b"\r\n\r\n{}",
    bytes(range(1, 256)),
    "é\u2028\U0001f600".encode(),
    b"%s%n\\n\\u0000",
]


def send_commands(client: Client, number: int) -> int:
    """Send valid and invalid commands; return the number of valid ones."""
    for turn in range(10):
        client.send_and_wait(GARBAGE[(number + turn) % len(GARBAGE)])
        client.send(b"time" * 10)
        client.read(ANSWER_BYTES * 10)
    assert client.quit() == b"quit"
    return 101


@pytest.fixture
def busy(daemon: MakeDaemon) -> Daemon:
    """Return a daemon that has served fifty busy clients and has stopped."""
    served = daemon()
    clients = [served.connect() for _ in range(50)]
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        assert set(pool.map(send_commands, clients, range(50))) == {101}
    served.stop()
    return served


def lines_of(daemon: Daemon) -> list[bytes]:
    """Return the lines of the log."""
    with open(daemon.log_file, "rb") as file:
        return file.read().splitlines(keepends=True)


def test_a_busy_log_is_complete(busy: Daemon) -> None:
    """Each line is a JSON object in ASCII, and each session has all its lines."""
    lines = lines_of(busy)
    assert all(line.isascii() and line.endswith(b"}\n") for line in lines)
    events: list[Event] = [json.loads(line) for line in lines]
    sessions: dict[str, list[Event]] = collections.defaultdict(list)
    for event in events:
        assert_has_common_fields(event)
        if event["event"].startswith("client."):
            sessions[event["connection"]].append(event)
    assert len(sessions) == 50
    assert_is_in_order(events)
    for session in sessions.values():
        assert_is_a_session(session)


def assert_has_common_fields(event: Event) -> None:
    """Check the fields of every line."""
    assert TIMESTAMP.fullmatch(event["timestamp"])
    assert event["level"] == LEVELS[event["event"]]
    assert isinstance(event["pid"], int)


def assert_is_a_session(lines: list[Event]) -> None:
    """Check the first line, the last line and the counts of a session."""
    assert [lines[0]["event"], lines[-1]["event"]] == ["client.connected", "client.disconnected"]
    assert len({(line["client"], line["service"], line["listener"]) for line in lines}) == 1
    counts = collections.Counter(line["event"] for line in lines)
    assert counts["client.command"] == lines[-1]["commands"] == 101
    assert counts["client.invalid"] >= 8
    assert lines[-1]["bytes_out"] == 100 * ANSWER_BYTES + 4
    assert lines[-1]["reason"] == "quit"


def assert_is_in_order(events: list[Event]) -> None:
    """Check that the lines of each process are in the order of their timestamps."""
    by_pid: dict[int, list[str]] = collections.defaultdict(list)
    for event in events:
        by_pid[event["pid"]].append(event["timestamp"])
    assert all(times == sorted(times) for times in by_pid.values())


LIFECYCLE = ["server.started", "server.stopping", "server.stopped"]


@pytest.mark.quick
def test_start_and_stop_are_logged(daemon: MakeDaemon) -> None:
    """From `server.started` to `server.stopped`, with version and file."""
    served = daemon()
    served.served().quit()
    served.stop()
    events = served.events()
    lifecycle = [event for event in events if "version" in event]
    assert [event["event"] for event in lifecycle] == LIFECYCLE
    assert all(event["config"] == served.file for event in lifecycle)
    assert all(re.fullmatch(r"\d+\.\d+.*", event["version"]) for event in lifecycle)
    started = events[0]
    assert started["pid"] == served.pid
    names = [event["event"] for event in events]
    assert names[1] == "server.listening"
    assert names[-1] == "server.stopped"
    assert collections.Counter(names)["server.stopping"] == 1


@pytest.mark.quick
def test_a_session_with_two_commands_is_four_lines(shared_daemon: MakeDaemon) -> None:
    """Connected, command, command, disconnected; with the handler's pid and all fields."""
    served = shared_daemon(listen=LISTEN)
    client = served.served()
    session = served.status()["sessions"][0]
    client.quit()
    served.wait_for("client.disconnected")
    lines = served.events(connection=session["connection"])
    assert [line.get("command") for line in lines] == [None, "time", "quit", None]
    assert {line["client"] for line in lines} == {client.name, session["client"]} == {client.name}
    assert {line["pid"] for line in lines} == {session["pid"]}
    end = lines[-1]
    assert (end["bytes_in"], end["bytes_out"], end["commands"]) == (8, 23, 2)
    assert isinstance(end["duration"], float)


def test_bytes_of_an_echo_are_counted(shared_daemon: MakeDaemon) -> None:
    """The last line has the bytes received and sent."""
    served = shared_daemon(listen=LISTEN)
    client = served.connect(ECHO)
    client.echo(b"x" * 1000)
    client.close()
    line = served.wait_for("client.disconnected")
    assert (line["reason"], line["service"]) == ("eof", "echo")
    assert (line["bytes_in"], line["bytes_out"]) == (1000, 1000)


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", {"info", "warning"}),
        ("info", {"info", "warning"}),
        ("warning", {"warning"}),
        ("error", set()),
    ],
)
def test_events_below_the_level_are_not_written(
    daemon: MakeDaemon, level: str, written: set[str]
) -> None:
    """`log.level` is the lowest level of the log."""
    served = daemon(log={"level": level})
    client = served.served()
    client.send_and_wait(b"help")
    client.quit()
    served.stop()
    assert {event["level"] for event in served.events()} - {"debug"} == written


def text_of(daemon: Daemon, format_: str) -> list[str]:
    """Serve a client, stop, and return the lines of a log in another format."""
    daemon.served().send_and_wait(b'a"\x1b=')
    daemon.stop()
    assert format_ == daemon.settings["log"]["format"]
    with open(daemon.log_file, encoding="ascii") as file:
        return file.read().splitlines()


def test_logfmt_has_the_same_fields(daemon: MakeDaemon) -> None:
    """`log.format: logfmt` writes key=value, one event a line."""
    lines = text_of(daemon(log={"format": "logfmt"}), "logfmt")
    assert all(re.match(r"timestamp=\S+Z level=\w+ event=\S+ pid=\d+", line) for line in lines)
    assert sum("event=client.connected" in line for line in lines) == 1
    assert sum("event=client.invalid" in line for line in lines) == 1


def test_the_console_format_is_readable(daemon: MakeDaemon) -> None:
    """`log.format: console` writes readable lines, without colours in a file."""
    lines = text_of(daemon(log={"format": "console"}), "console")
    assert not any("\x1b" in line or line.startswith("{") for line in lines)
    assert sum("client.connected" in line for line in lines) == 1
    assert sum("client.invalid" in line for line in lines) == 1


def test_the_name_of_the_file_is_escaped(daemon: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """The log stays ASCII, and a JSON parser returns the name."""
    folder = os.path.join(tmp_path, 'tëtr"ad\n\u2028')
    os.mkdir(folder)
    served = daemon(folder=folder)
    assert served.wait_for("server.started")["config"] == served.file
    assert all(line.isascii() for line in lines_of(served))


def test_a_partial_line_of_another_program_is_ended(prepared: MakeDaemon) -> None:
    """The first event of the daemon is on a line of its own."""
    served = prepared()
    with open(served.log_file, "w", encoding="ascii") as file:
        file.write('{"complete": 1}\n{"to')
    served.start()
    until(lambda: b"server.started" in b"".join(lines_of(served)), "the first line")
    lines = lines_of(served)
    assert lines[0] == b'{"complete": 1}\n'
    own = [line for line in lines if b"server.started" in line]
    assert json.loads(own[0])["pid"] == served.pid
    os.truncate(served.log_file, 0)


def test_the_log_is_appended_to(daemon: MakeDaemon) -> None:
    """A new start keeps the old lines."""
    served = daemon()
    served.stop()
    served.start()
    served.wait_for("server.started", count=2)
    assert served.events()[0]["event"] == "server.started"


def test_the_log_is_complete_when_the_master_exits(daemon: MakeDaemon) -> None:
    """The last lines of all sessions are in the file by then."""
    served = daemon()
    clients = [served.connect() for _ in range(30)]
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)
    until(lambda: len(served.handlers) == 30, "handlers that wait")
    served.signal(signal.SIGTERM)
    assert served.is_gone()
    assert len(served.events("client.disconnected", reason="stopping")) == 30
    assert served.events()[-1]["event"] == "server.stopped"
