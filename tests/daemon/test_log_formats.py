"""`tetrad logs` with each format of the log, and with a daemon that logs somewhere else."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import run_here
from tests.support.daemons import until

if TYPE_CHECKING:
    import pathlib

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

LAST = "client.refused"
"""The last event of the log of `busy`."""


@pytest.fixture(params=["json", "logfmt", "console"])
def busy(daemon: MakeDaemon, request: pytest.FixtureRequest) -> Daemon:
    """Return a daemon after a session, an invalid command and a refused client."""
    served = daemon(log={"format": request.param}, access={"deny": ["127.0.0.9"]})
    served.served(source="127.0.0.2").quit()
    until(lambda: "reason=quit" in printed(served), "the end of a session")
    invalid = served.connect(source="127.0.0.3")
    invalid.send(b"he=p")
    invalid.half_close()
    assert invalid.read_all() == b""
    until(lambda: "reason=eof" in printed(served), "the end of another session")
    assert served.connect(source="127.0.0.9").is_refused()
    until(lambda: LAST in printed(served), "a refusal")
    return served


def printed(daemon: Daemon, *arguments: str) -> str:
    """Return what `tetrad logs` prints."""
    ran = run_here(daemon, "logs", *arguments)
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def names(text: str) -> list[str]:
    """Return the event of each readable line."""
    return [line.split()[3] for line in text.splitlines()]


def test_the_filters_work_in_every_format(busy: Daemon) -> None:
    """Only matching events are printed, in the same readable lines."""
    everything = printed(busy).splitlines()
    stamp = rf"{datetime.now().astimezone():%Y}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{{3}} "
    assert all(re.match(rf"{stamp}(info   |warning) [a-z]+\.[a-z]+ ", line) for line in everything)
    refused = printed(busy, "--client", "127.0.0.9")
    assert names(refused) == [LAST]
    assert refused.endswith(" reason=access rule=access.deny[0]\n")
    assert names(printed(busy, "--level", "warning")) == ["client.invalid", LAST]
    assert names(printed(busy, "--event", "server.*")) == ["server.started", "server.listening"]
    assert names(printed(busy, "--reason", "[qe]*")) == ["client.disconnected"] * 2
    assert names(printed(busy, "--reason", "quit")) == ["client.disconnected"]
    connection = refused.split()[4]
    assert printed(busy, "--connection", connection) == refused
    assert printed(busy, "--event", "nothing") == ""
    assert printed(busy, "--until", "1h") == ""
    assert printed(busy, "--since", "1h", "--until", "2100-01-01").splitlines() == everything


def test_events_are_printed_as_json(busy: Daemon) -> None:
    """One object a line, with the fields of the format json."""
    lines = printed(busy, "--json").splitlines()
    assert len(lines) == len(printed(busy).splitlines())
    events = [json.loads(line) for line in lines]
    assert [list(event)[:4] for event in events] == [["timestamp", "level", "event", "pid"]] * 10
    (invalid,) = [event for event in events if event["event"] == "client.invalid"]
    assert invalid["command"] == "he=p"
    (ended,) = [event for event in events if event.get("reason") == "quit"]
    assert (ended["bytes_in"], ended["bytes_out"], ended["commands"]) == (8, 23, 2)
    assert isinstance(ended["duration"], float)
    assert {type(event["pid"]) for event in events} == {int}


def test_other_lines_are_not_printed_as_json(prepared: MakeDaemon) -> None:
    """A program that reads them gets events alone."""
    daemon = prepared(log={"format": "console"})
    with open(daemon.log_file, "w", encoding="ascii") as file:
        file.write('no event\n{"timestamp":"2026-11-22T16:18:34Z","level":"info","event":"x"}\n')
    assert json.loads(printed(daemon, "--json"))["event"] == "x"


def test_a_stale_file_is_not_shown(prepared: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """A daemon that logs to standard error is named, whatever the file says meanwhile."""
    served = prepared(log={"file": None, "format": "console"})
    served.run(str(tmp_path / "out"))
    until(lambda: "server.listening" in (tmp_path / "out").read_text(), "a start")
    served.configure(log={"file": "tetrad.log"})
    with open(served.log_file, "w", encoding="ascii") as file:
        file.write("stale\n")
    ran = served.tetrad("logs")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        f"tetrad: the daemon (pid {served.pid}) logs to its standard error, not to a file; under"
        " systemd: journalctl -u tetrad\n"
    )
    served.stop()
    assert printed(served) == "stale\n"


def test_the_log_of_the_running_daemon_is_shown(daemon: MakeDaemon) -> None:
    """Until a reload that is not the one of the file."""
    served = daemon()
    served.wait_for("server.listening")
    served.configure(log={"file": "other.log"})
    assert names(printed(served)) == ["server.started", "server.listening"]
    assert not os.path.exists(f"{served.folder}/other.log")


def test_the_log_of_a_suspended_daemon_is_shown(daemon: MakeDaemon) -> None:
    """It cannot tell where its log is; the file can."""
    served = daemon()
    served.wait_for("server.listening")
    served.signal(signal.SIGSTOP)
    try:
        assert names(printed(served)) == ["server.started", "server.listening"]
    finally:
        served.signal(signal.SIGCONT)
