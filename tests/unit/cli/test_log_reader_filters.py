"""Which lines of a log are read: those that match, the last ones, those since a moment."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.support.written_logs import JUNK, START, line, shown, write
from tetrad.cli.log_reader import parse
from tetrad.cli.logs import render


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ({"event": "client.*"}, {"event": "client.command"}),
        ({"event": "*.connected"}, {"event": "client.connected"}),
        ({"event": "log.lost"}, {"event": "log.lost"}),
        ({"event": "client.[ci]*"}, {"event": "client.invalid"}),
        ({"connection": "1f-2"}, {"connection": "1f-2"}),
        ({"level": "debug"}, {"level": "debug"}),
        ({"level": "warning"}, {"level": "warning"}),
        ({"level": "warning"}, {"level": "error"}),
        ({"client": "192.0.2.0/24"}, {"client": "192.0.2.7:5"}),
        ({"client": "192.0.2.7"}, {"client": "192.0.2.7:5"}),
        ({"client": "2001:db8::/32"}, {"client": "[2001:db8::1]:5"}),
        ({"client": "0.0.0.0/0"}, {"client": "192.0.2.7:5"}),
        ({"client": "192.0.2.7", "level": "error"}, {"client": "192.0.2.7:5", "level": "error"}),
    ],
)
def test_a_matching_event_is_read(
    path: str, wanted: dict[str, Any], fields: dict[str, str]
) -> None:
    """Each condition accepts the events that match it."""
    write(path, line(1, **fields))
    assert shown(path, **networked(wanted)) == [line(1, **fields)]


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        ({"event": "client.*"}, {"event": "server.started"}),
        ({"event": "client"}, {"event": "client.command"}),
        ({"event": "CLIENT.*"}, {"event": "client.command"}),
        ({"connection": "1f-2"}, {"connection": "1f-22"}),
        ({"connection": "1f-2"}, {}),
        ({"level": "info"}, {"level": "debug"}),
        ({"level": "error"}, {"level": "warning"}),
        ({"level": "debug"}, {"level": "fatal"}),
        ({"client": "192.0.2.0/24"}, {"client": "192.0.3.7:5"}),
        ({"client": "192.0.2.7"}, {"client": "192.0.2.77:5"}),
        ({"client": "0.0.0.0/0"}, {"client": "[2001:db8::1]:5"}),
        ({"client": "::/0"}, {"client": "192.0.2.7:5"}),
        ({"client": "0.0.0.0/0"}, {"client": "unix:1"}),
        ({"client": "0.0.0.0/0"}, {"client": 5}),
        ({"client": "0.0.0.0/0"}, {"client": "x"}),
        ({"client": "0.0.0.0/0"}, {}),
        ({"client": "192.0.2.7", "level": "error"}, {"client": "192.0.2.7:5"}),
    ],
)
def test_another_event_is_not_read(
    path: str, wanted: dict[str, Any], fields: dict[str, Any]
) -> None:
    """One condition that is not met is enough."""
    write(path, line(1, **fields))
    assert shown(path, **networked(wanted)) == []


def networked(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return conditions with a parsed network."""
    if "client" in wanted:
        return {**wanted, "client": ipaddress.ip_network(wanted["client"])}
    return wanted


@pytest.mark.parametrize(("count", "first"), [(0, 9), (1, 8), (3, 6), (9, 0), (None, 0)])
def test_the_last_lines_are_read_the_oldest_first(path: str, count: int | None, first: int) -> None:
    """The last `count` of nine lines are in the order in which they were written."""
    write(path, *map(line, range(9)))
    assert shown(path, count) == [*map(line, range(first, 9))]


def test_lines_are_counted_after_the_filters(path: str) -> None:
    """`count` is the number of matching lines."""
    write(path, *(line(number, connection=f"{number % 10}") for number in range(100)))
    assert shown(path, 2, connection="3") == [line(83, connection="3"), line(93, connection="3")]


def test_older_events_are_not_read(path: str) -> None:
    """`since` includes its own second."""
    write(path, *map(line, range(9)))
    assert shown(path, since=START + 6.0) == [*map(line, range(6, 9))]
    assert shown(path, 2, since=START + 6.0) == [*map(line, range(7, 9))]
    assert shown(path, since=START + 8.5) == []


@pytest.mark.parametrize("junk", JUNK)
def test_another_line_is_no_event(junk: bytes) -> None:
    """Other formats, incomplete lines, other JSON and binary data are not events of ours."""
    assert parse(junk) is None


@pytest.mark.parametrize("junk", JUNK)
def test_another_line_is_not_changed(path: str, junk: bytes) -> None:
    """A line that is no event meets all conditions and is rendered byte for byte."""
    write(path, line(1), junk, line(2))
    assert shown(path, 2, event="log.*", since=float(START)) == [junk]
    assert render(junk, terminal=False, colour=False) == junk


def test_a_line_out_of_order_does_not_end_the_search(path: str) -> None:
    """Handlers may write an event a little later: `since` allows for that."""
    write(path, line(4), line(3), line(6), line(4), line(5))
    assert shown(path, since=START + 5.0) == [line(6), line(5)]
