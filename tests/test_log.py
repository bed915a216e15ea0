"""The log: one event a line, whole and ASCII, whatever clients send."""

from __future__ import annotations

import collections
import concurrent.futures
import json
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER_BYTES
from processes import until

if TYPE_CHECKING:
    import pathlib

    from clients import Client
    from conftest import MakeDaemon
    from daemons import Daemon, Event

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


def garble(client: Client, number: int) -> int:
    """Be one of many busy clients; return how many commands were sent."""
    for turn in range(10):
        client.say(GARBAGE[(number + turn) % len(GARBAGE)])
        client.send(b"time" * 10)
        client.read(ANSWER_BYTES * 10)
    assert client.quit() == b"quit"
    return 101


@pytest.fixture
def busy(daemon: MakeDaemon) -> Daemon:
    """Return a daemon that fifty clients have kept busy, and that has stopped."""
    served = daemon()
    clients = [served.connect() for _ in range(50)]
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as crowd:
        assert set(crowd.map(garble, clients, range(50))) == {101}
    served.stop()
    return served


def lines_of(daemon: Daemon) -> list[bytes]:
    """Return the log's lines."""
    with open(daemon.log_file, "rb") as file:
        return file.read().splitlines(keepends=True)


def test_a_busy_log_is_whole(busy: Daemon) -> None:
    """Each line is one JSON object in ASCII, and each session is told from end to end."""
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
    for told in sessions.values():
        assert_is_a_session(told)


def assert_has_common_fields(event: Event) -> None:
    """Check what every line has."""
    assert TIMESTAMP.fullmatch(event["timestamp"])
    assert event["level"] == LEVELS[event["event"]]
    assert isinstance(event["pid"], int)


def assert_is_a_session(told: list[Event]) -> None:
    """Check that lines of one connection begin, add up and end."""
    assert [told[0]["event"], told[-1]["event"]] == ["client.connected", "client.disconnected"]
    assert len({(line["client"], line["service"], line["listener"]) for line in told}) == 1
    counts = collections.Counter(line["event"] for line in told)
    assert counts["client.command"] == told[-1]["commands"] == 101
    assert counts["client.invalid"] >= 8
    assert told[-1]["bytes_out"] == 100 * ANSWER_BYTES + 4
    assert told[-1]["reason"] == "quit"


def assert_is_in_order(events: list[Event]) -> None:
    """Check that one process's lines are in the order of their times."""
    by_pid: dict[int, list[str]] = collections.defaultdict(list)
    for event in events:
        by_pid[event["pid"]].append(event["timestamp"])
    assert all(times == sorted(times) for times in by_pid.values())


TURNS = ["server.started", "server.stopping", "server.stopped"]


def test_a_daemon_tells_its_whole_life(daemon: MakeDaemon) -> None:
    """From `server.started` to `server.stopped`, with version and file."""
    served = daemon()
    served.served().quit()
    served.stop()
    events = served.events()
    turns = [event for event in events if "version" in event]
    assert [turn["event"] for turn in turns] == TURNS
    assert all(turn["config"] == served.file for turn in turns)
    assert all(re.fullmatch(r"\d+\.\d+.*", turn["version"]) for turn in turns)
    started = events[0]
    assert started["pid"] == served.pid
    named = [event["event"] for event in events]
    assert named[1] == "server.listening"
    assert named[-1] == "server.stopped"
    assert collections.Counter(named)["server.stopping"] == 1


def test_a_session_is_told_in_four_lines(daemon: MakeDaemon) -> None:
    """Connected, command, command, disconnected; by its handler, with all its fields."""
    served = daemon()
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


def test_bytes_of_an_echo_are_counted(daemon: MakeDaemon) -> None:
    """What came in and what went out stand in the last line."""
    served = daemon(listen=[{"port": 0, "service": "echo"}])
    client = served.connect()
    client.echo(b"x" * 1000)
    client.close()
    line = served.wait_for("client.disconnected")
    assert (line["reason"], line["service"]) == ("eof", "echo")
    assert (line["bytes_in"], line["bytes_out"]) == (1000, 1000)


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", {"info", "warning"}),
        ("info", {"info", "warning"}),
        ("warning", {"warning"}),
        ("error", set()),
    ],
)
def test_the_level_is_the_least_that_is_written(
    daemon: MakeDaemon, level: str, seen: set[str]
) -> None:
    """Below `log.level` nothing is written."""
    served = daemon(log={"level": level})
    client = served.served()
    client.say(b"help")
    client.quit()
    served.stop()
    assert {event["level"] for event in served.events()} - {"debug"} == seen


def text_of(daemon: Daemon, format_: str) -> list[str]:
    """Return the lines of a short life in another format."""
    daemon.served().say(b'a"\x1b=')
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


def test_the_console_format_is_for_people(daemon: MakeDaemon) -> None:
    """`log.format: console` writes readable lines, without colours in a file."""
    lines = text_of(daemon(log={"format": "console"}), "console")
    assert not any("\x1b" in line or line.startswith("{") for line in lines)
    assert sum("client.connected" in line for line in lines) == 1
    assert sum("client.invalid" in line for line in lines) == 1


def test_a_file_with_any_name_keeps_the_log_ascii(
    daemon: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """A name beyond ASCII is escaped, and reads back as it was."""
    folder = os.path.join(tmp_path, 'tëtr"ad\n\u2028')
    os.mkdir(folder)
    served = daemon(folder=folder)
    assert served.wait_for("server.started")["config"] == served.file
    assert all(line.isascii() for line in lines_of(served))


def test_a_torn_last_line_is_not_made_worse(prepared: MakeDaemon) -> None:
    """What somebody else has left without a line ending does not swallow our first line."""
    served = prepared()
    with open(served.log_file, "w", encoding="ascii") as file:
        file.write('{"whole": 1}\n{"to')
    served.start()
    until(lambda: b"server.started" in b"".join(lines_of(served)), "the first line")
    lines = lines_of(served)
    assert lines[0] == b'{"whole": 1}\n'
    ours = [line for line in lines if b"server.started" in line]
    assert json.loads(ours[0])["pid"] == served.pid
    os.truncate(served.log_file, 0)


def test_the_log_is_appended_to(daemon: MakeDaemon) -> None:
    """A new start leaves the old lines where they are."""
    served = daemon()
    served.stop()
    served.start()
    served.wait_for("server.started", count=2)
    assert served.events()[0]["event"] == "server.started"


def test_the_log_is_complete_when_the_master_is_gone(daemon: MakeDaemon) -> None:
    """The last lines of many sessions are in the file before the daemon's end is seen."""
    served = daemon()
    for _ in range(30):
        served.served()
    served.signal(signal.SIGTERM)
    assert served.is_gone()
    assert len(served.events("client.disconnected", reason="stopping")) == 30
    assert served.events()[-1]["event"] == "server.stopped"
