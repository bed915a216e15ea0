"""How `tetrad logs` renders a line: local time, colours, and nothing that controls a terminal."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.written_logs import JUNK, line, shown, write
from tetrad.cli.log_reader import parse
from tetrad.cli.logs import render

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a local time zone of UTC+9."""
    monkeypatch.setitem(os.environ, "TZ", "<KST>-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_an_event_is_rendered_in_local_time() -> None:
    """Fields that are the same in all lines of a connection are left out."""
    client = {"client": "192.0.2.7:5", "connection": "1f-2", "service": "echo", "listener": "x"}
    text = render(line(0, pid=7, **client, duration=1.5), terminal=False, colour=False).decode()
    assert text == (
        "2026-11-22 21:18:34.000 info    client.command      1f-2 192.0.2.7:5 number=0 duration=1.5"
    )
    text = render(line(0, pid=7, config=None), terminal=False, colour=False).decode()
    assert text.endswith(" info    client.command      number=0 pid=7 config=null")


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize("stamp", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_times_out_of_range_do_no_harm(path: str, stamp: str) -> None:
    """A time that does not exist in this time zone makes the line no event."""
    joke = line(1, timestamp=stamp)
    write(path, joke, line(2))
    assert shown(path, 2) == [joke, line(2)]
    assert render(joke, terminal=True, colour=True)


def test_values_with_spaces_are_quoted() -> None:
    """Quotes mark the begin and the end of a value."""
    text = render(line(0, command="a b", reason=""), terminal=False, colour=False).decode()
    assert text.endswith(' command="a b" reason=""')


@pytest.mark.parametrize(
    ("level", "code"), [("debug", 2), ("info", 32), ("warning", 33), ("error", 31), ("odd", 0)]
)
def test_levels_have_colours(level: str, code: int) -> None:
    """Only the level has a colour, and only with `colour`."""
    coloured = render(line(0, level=level), terminal=True, colour=True).decode()
    assert f" \x1b[{code}m{level:<7}\x1b[0m " in coloured
    plain = render(line(0, level=level), terminal=True, colour=False).decode()
    assert plain == coloured.replace(f"\x1b[{code}m", "").replace("\x1b[0m", "")


EVIL = "\x1b[2J\x1b]0;title\x07\r\n\t\b\x00\x7f\x9b2J\u2028\u202e\u200b\ud800"
"""Control characters, characters that hide or reverse text, and lone surrogates."""


@pytest.mark.parametrize(
    "fields",
    [
        {"command": EVIL},
        {"command": f"{EVIL} {EVIL}"},
        {EVIL: 1},
        {"event": EVIL},
        {"level": EVIL},
        {"client": EVIL},
        {"connection": EVIL},
        {"connection": [EVIL]},
        {"errors": [EVIL, {EVIL: EVIL}]},
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_no_event_controls_a_terminal(fields: dict[str, Any], *, terminal: bool) -> None:
    """Escape sequences in an event are escaped, also if the output is a pipe."""
    for escaped in (True, False):
        document = {**json.loads(line(0)), **fields}
        forged = json.dumps(document, ensure_ascii=escaped).encode(errors="surrogatepass")
        text = render(forged, terminal=terminal, colour=False)
        if parse(forged) is not None or terminal:
            assert text.decode().isprintable()


@pytest.mark.parametrize("junk", [*JUNK, EVIL.encode(errors="surrogatepass")])
def test_no_other_line_controls_a_terminal(junk: bytes) -> None:
    """Other lines have no control characters on a terminal."""
    assert render(junk, terminal=True, colour=True).decode().isprintable()


@pytest.mark.parametrize("depth", [10, 500, *range(900, 1000, 5), 2000])
def test_nested_events_do_no_harm(depth: int) -> None:
    """A line with deeply nested values is rendered."""
    nested = line(0)[:-1] + b',"a":' + b"[" * depth + b"]" * depth + b"}"
    assert b"[[[" in render(nested, terminal=True, colour=False)
