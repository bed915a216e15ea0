"""Every format of the log is read: the same events, whichever format the daemon writes."""

from __future__ import annotations

import datetime as dt
import json
import os
import string
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tetrad.cli import logs
from tetrad.cli.log_reader import LogFilter, parse
from tetrad.cli.logs import as_json, render
from tetrad.cli.parser import parser

if TYPE_CHECKING:
    from collections.abc import Iterator

RENDERERS: dict[str, Any] = {
    "logfmt": structlog.processors.LogfmtRenderer(),
    "console": structlog.dev.ConsoleRenderer(colors=False, sort_keys=False),
    "coloured": structlog.dev.ConsoleRenderer(colors=True, sort_keys=False),
}

HEAD = {"timestamp": "2026-11-22T16:18:34.000012Z", "level": "info", "event": "client.connected"}

WORDS = st.text(string.ascii_letters + string.digits + " =\\[]{}.,:-_/*", min_size=1, max_size=20)


def written(style: str, fields: dict[str, Any]) -> bytes:
    """Return the line of an event as the logger writes it."""
    line: str = RENDERERS[style](None, fields["level"], dict(fields))
    return line.encode("ascii", "backslashreplace")


@pytest.mark.parametrize("style", RENDERERS)
@pytest.mark.parametrize(
    "fields",
    [
        {"pid": 7, "version": "0.1.0", "config": None},
        {"pid": 7, "version": "0.1.0", "config": "/etc/with space/tetrad.yaml"},
        {"address": "127.0.0.1", "port": 65000, "service": "command"},
        {"address": "/x", "port": None},
        {"changes": {"limits.clients": "1000 -> 50", "access.deny": '[] -> ["192.0.2.0/24"]'}},
        {"errors": ["it's: not (so)", "two"]},
        {"client": "[2001:db8::1]:5", "connection": "1f-2", "command": "time"},
        {"command": "1234"},
        {"command": "None"},
        {"command": "\\x00"},
        {"command": "\\n"},
        {"command": "a b="},
        {"reason": "quit", "duration": 0.000012, "bytes_in": 4, "bytes_out": 19, "commands": 1},
        {"command": "load", "status": 0, "cut": True, "stderr": "", "error": 'it said "no"'},
        {"subject": "CN=monitor, client=192.0.2.1:5,O=x", "reason": "quit"},
    ],
)
def test_an_event_is_the_same_in_every_format(style: str, fields: dict[str, Any]) -> None:
    """With its types, so that the JSON and the readable line are the same, too."""
    event = HEAD | fields
    line = written(style, event)
    plain = json.dumps(event).encode()
    assert parse(line) == parse(plain) is not None
    assert json.loads(as_json(line) or b"") == event
    assert render(line, terminal=False, colour=False) == render(plain, terminal=False, colour=False)


@given(st.sampled_from([*RENDERERS]), st.dictionaries(st.sampled_from(["reason", "why"]), WORDS))
def test_every_text_is_the_same_in_every_format(style: str, fields: dict[str, str]) -> None:
    """Spaces, brackets, backslashes and equals signs belong to the value."""
    event = HEAD | fields
    assert parse(written(style, event)) == parse(json.dumps(event).encode())


def test_a_text_without_quotes_is_complete() -> None:
    """Older versions of structlog do not quote in `console`; the first value of a key counts."""
    text = "2026-11-22T16:18:34Z [info     ] client.command     "
    text += "reason=quit stderr=no such reason=file  x y pid=7"
    event = parse(text.encode())
    assert event is not None
    assert event.fields["reason"] == "quit"
    assert event.fields["stderr"] == "no such reason=file  x y"
    assert event.fields["pid"] == 7


def test_a_line_of_brackets_is_read_once() -> None:
    """A list without an end is not searched from each of its brackets in a long line."""
    head = b"2026-11-22T16:18:34Z [info     ] x "
    assert parse(head + b"a=[ " * 400) is not None
    assert parse(head + b"a=[ " * 400_000) is None


@pytest.mark.parametrize(
    ("pattern", "reason", "matches"),
    [
        ("quit", "quit", True),
        ("*_timeout", "idle_timeout", True),
        ("quit", "eof", False),
        ("quit", None, False),
        ("quit", 5, False),
    ],
)
def test_reasons_are_matched(pattern: str, reason: object, *, matches: bool) -> None:
    """By their whole name, or by a pattern."""
    event = parse(json.dumps(HEAD | ({} if reason is None else {"reason": reason})).encode())
    assert LogFilter(reason=pattern).matches(event) is matches


@pytest.fixture
def morning(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let it be half past nine, one hour east of Greenwich."""
    monkeypatch.setitem(os.environ, "TZ", "<CET>-1")
    time.tzset()
    now = dt.datetime.fromisoformat("2026-11-22 09:30")
    clock: Any = type("Clock", (dt.datetime,), {"now": classmethod(lambda _cls, _tz=None: now)})
    monkeypatch.setattr(dt, "datetime", clock)
    monkeypatch.setattr(time, "time", now.timestamp)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("morning")
@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("10m", None, ("22 09:20", None)),
        ("600", None, ("22 09:20", None)),
        ("09:00", None, ("22 09:00", None)),
        ("09:00:30", None, ("22 09:00:30", None)),
        ("22:00", None, ("21 22:00", None)),
        ("2026-11-20", None, ("20 00:00", None)),
        ("2026-11-20 08:00", None, ("20 08:00", None)),
        ("2026-11-20T08:00Z", None, ("20 09:00", None)),
        (None, "10m", (None, "22 09:20")),
        (None, "10:00", (None, "21 10:00")),
        ("09:00", "09:10", ("22 09:00", "22 09:10")),
        ("09:00", "10:00", ("22 09:00", "22 10:00")),
        ("22:00", "23:00", ("21 22:00", "21 23:00")),
        ("23:00", "01:00", ("21 23:00", "22 01:00")),
        ("2026-11-20", "09:00", ("20 00:00", "22 09:00")),
    ],
)
def test_a_time_is_the_last_one_that_has_passed(
    since: str | None, until: str | None, expected: tuple[str | None, str | None]
) -> None:
    """A period that begins in the past may end in the future."""
    given = {"--since": since, "--until": until}
    arguments = [word for name, value in given.items() if value for word in (name, value)]
    options = parser().parse_args(["logs", *arguments])
    found = logs._period(options.since, options.until)  # noqa: SLF001 - needs no log
    wanted = [one and dt.datetime.fromisoformat(f"2026-11-{one}").timestamp() for one in expected]
    assert [*found] == wanted


@pytest.mark.parametrize(
    "moment", ["", "yesterday", "25:00", "16", "2026-13-01", "0001-01-01", "9999-12-31", "-1", "0"]
)
def test_another_time_is_a_usage_error(
    moment: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has examples."""
    monkeypatch.setitem(os.environ, "TZ", "<CET>-1")
    if moment in {"16", "9999-12-31"}:  # seconds, and a year that is far but exists
        assert parser().parse_args(["logs", f"--since={moment}"]).since
        return
    with pytest.raises(SystemExit):
        parser().parse_args(["logs", f"--since={moment}"])
    assert "a time such as 16:18" in capsys.readouterr().err
