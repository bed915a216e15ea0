"""Floods of commands: they neither fill the disk nor take the room of other events in the log."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER_BYTES
from tests.support.log_accounting import count_events
from tests.support.processes import in_background, stopped, until

if TYPE_CHECKING:
    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import MakeDaemon

BURST = 1000
"""Lines that a session may log at once by default: ten times `log.session_rate`."""

COMMANDS_TO_FILL_PIPE = 20_000
"""Commands whose events exceed the pipe to the logger, which holds a megabyte."""

CONNECTED_AND_DISCONNECTED = 2


def flood(client: Client, commands: int, word: bytes = b"time") -> None:
    """Send this many commands, and read the answers."""
    sender = in_background(lambda: client.send(word * commands))
    assert len(client.read(ANSWER_BYTES * commands)) == ANSWER_BYTES * commands
    sender.join()


def summaries(lines: list[Event]) -> int:
    """Return how many events the lines with `suppressed` stand for."""
    return sum(line.get("suppressed", 0) for line in lines)


def single(lines: list[Event]) -> list[Event]:
    """Return the lines that are about one command."""
    return [line for line in lines if "command" in line]


def seconds_between(first: Event, last: Event) -> float:
    """Return the time between two lines."""
    times = [datetime.fromisoformat(line["timestamp"]) for line in (first, last)]
    return (times[1] - times[0]).total_seconds()


def test_the_lines_of_a_flood_are_limited_and_counted(daemon: MakeDaemon) -> None:
    """Of 50,000 commands a burst and the rate have lines; the session counts all of them."""
    served = daemon()
    client = served.connect()
    flood(client, 50_000)
    assert client.quit() == b"quit"
    end = served.wait_for("client.disconnected")
    lines = served.events("client.command")
    seconds = seconds_between(served.events("client.connected")[0], end)
    assert BURST <= len(single(lines)) <= BURST + 100 * seconds + 1
    assert len(lines) - len(single(lines)) <= seconds + 1
    assert len(single(lines)) + summaries(lines) == end["commands"] == 50_001
    served.stop()
    assert count_events(served.events()).lost == 0


def test_the_lines_of_invalid_commands_are_limited_too(daemon: MakeDaemon) -> None:
    """Valid and invalid commands share a budget, and each kind has its own count."""
    served = daemon(log={"session_rate": "1/h"})
    client = served.connect()
    for _ in range(12):
        client.send_and_wait(b"junk")
    flood(client, 5)
    assert client.quit() == b"quit"
    served.wait_for("client.disconnected", commands=6)
    invalid, valid = served.events("client.invalid"), served.events("client.command")
    assert (len(single(invalid)), summaries(invalid)) == (10, 2)
    assert (len(single(valid)), summaries(valid)) == (0, 6)
    assert {line["level"] for line in invalid} == {"warning"}


def test_a_client_that_pauses_is_summarised_meanwhile(shared_daemon: MakeDaemon) -> None:
    """The number of suppressed lines does not wait for the end of the session."""
    served = shared_daemon(log={"session_rate": "1/h"})
    client = served.connect()
    flood(client, 30)
    summary = until(
        lambda: [line for line in served.events("client.command") if "suppressed" in line],
        "a line with the number of suppressed ones",
    )
    assert summary[0]["suppressed"] == 20
    assert not served.events("client.disconnected")


def test_commands_of_the_fast_path_use_the_budget(shared_daemon: MakeDaemon) -> None:
    """Those that were answered before the session left the fast path are counted, too."""
    served = shared_daemon(log={"session_rate": "1/h"})
    client = served.connect()
    for _ in range(15):
        client.ask()
    assert client.quit() == b"quit"
    served.wait_for("client.disconnected", commands=16)
    lines = served.events("client.command")
    assert (len(single(lines)), summaries(lines)) == (10, 6)


def test_all_lines_are_written_without_a_budget(daemon: MakeDaemon) -> None:
    """With `session_rate: null` each command has its line."""
    served = daemon(log={"session_rate": None})
    client = served.connect()
    flood(client, 3000)
    assert client.quit() == b"quit"
    served.wait_for("client.disconnected")
    assert len(single(served.events("client.command"))) == 3001


def test_a_reload_changes_the_budget_of_new_sessions(daemon: MakeDaemon) -> None:
    """Sessions that run keep the budget that they began with, as they keep their timeouts."""
    served = daemon(log={"session_rate": "1/h"})
    running = served.served()
    served.configure(log={"session_rate": "2/h"})
    assert "log.session_rate: 1/h -> 2/h" in served.tetrad("reload").out
    new = served.connect()
    for client, most in ((running, 10), (new, 20)):
        flood(client, 30)
        assert client.quit() == b"quit"
        served.wait_for("client.disconnected", client=client.name)
        lines = served.events("client.command", client=client.name)
        assert len(single(lines)) == most


def fill_with_commands(served: Daemon) -> int:
    """Send more commands than the pipe has room for; return how many events that caused."""
    client = served.connect()
    flood(client, COMMANDS_TO_FILL_PIPE)
    assert client.quit() == b"quit"
    until(lambda: not served.status()["clients"]["now"], "the end of the flood")
    return COMMANDS_TO_FILL_PIPE + 1 + CONNECTED_AND_DISCONNECTED


@pytest.mark.parametrize("rate", [None, "100/s"])
def test_a_flood_leaves_room_for_other_events(daemon: MakeDaemon, rate: str | None) -> None:
    """While nothing is read from the pipe, only commands of the flood are lost, and counted."""
    served = daemon(log={"session_rate": rate}, access={"deny": ["127.0.0.2"]})
    refused, quiet = 5, 20
    with stopped(served.logger):
        sent = 4 + fill_with_commands(served)
        for _ in range(quiet):
            client = served.connect()
            client.send(b"junk")
            client.half_close()
            assert client.read_all() == b""
        assert all(served.connect(source="127.0.0.2").is_refused() for _ in range(refused))
        sent += 3 * quiet + refused
    served.wait_for("client.disconnected", count=1 + quiet)
    served.stop()
    assert len(served.events("client.invalid")) == quiet
    assert len(served.events("client.connected")) == 1 + quiet
    assert len(served.events("client.refused")) == refused
    end = served.events("client.disconnected", commands=COMMANDS_TO_FILL_PIPE + 1)
    assert len(end) == 1
    counts = count_events(served.events())
    assert counts.written + counts.lost == sent
    assert counts.lost > 0 or rate is not None
