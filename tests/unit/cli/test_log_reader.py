"""Reading the log: which lines, from which files, in which order, and how they are rendered."""

from __future__ import annotations

import gzip
import ipaddress
import json
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.cli import log_reader
from tetrad.cli.log_reader import LogFilter, parse, read
from tetrad.cli.logs import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GZIP_HEADER = gzip.compress(b"", mtime=0)[:10]

START = 1795349914
"""The time of line 0, in seconds since 1970."""

JUNK = [
    b"",
    b" ",
    b"timestamp=2026-11-22T16:18:34Z level=info",
    b"timestamp=yesterday level=info event=client.connected",
    b"level=info event=client.connected",
    b"2026-11-22T16:18:34Z info client.connected",
    b"2026-11-22T16:18:34Z [info     ]",
    b"2026-11-22T16:18:34Z [info     ] client.connected torn",
    b"a=[" * 20_000,
    b'{"timestamp":"2026-11-22T16:18:34.00',
    b'{"level":"info","event":"x"}',
    b'{"timestamp":"2026-11-22T16:18:34Z","event":"x"}',
    b'{"timestamp":"2026-11-22T16:18:34Z","level":"info"}',
    b'{"timestamp":"2026-11-22T16:18:34Z","level":[],"event":"x"}',
    b'{"timestamp":"2026-11-22T16:18:34Z","level":"info","event":{}}',
    b'{"timestamp":"2026-11-22T16:18:34Z","level":null,"event":"x"}',
    b'{"timestamp":"yesterday","level":"info","event":"x"}',
    b'{"timestamp":5,"level":"info","event":"x"}',
    b'["timestamp"]',
    b'"timestamp"',
    b"null",
    b"5" * 5000,
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b"\x00" * 64,
    b"\xff\xfe{\x00}\x00",
    bytes(set(range(256)) - {0x0A}),
    "Grüße, 東京".encode(),
    b"carriage\rreturns\r",
]
"""Lines that are not events of ours."""


class EndOfTest(Exception):  # noqa: N818 - not an error
    """No more changes of the log follow."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return the path of the log."""
    return str(tmp_path / "tetrad.log")


def line(number: int, **fields: object) -> bytes:
    """Return the line of an event; `number` is its time in seconds after line 0."""
    stamp = f"{datetime.fromtimestamp(START + number, UTC):%Y-%m-%dT%H:%M:%S}.000000Z"
    head = {"timestamp": stamp, "level": "info", "event": "client.command"}
    return json.dumps({**head, "number": number, **fields}).encode()


def write(path: str, *lines: bytes, age: int = 0, mode: str = "ab") -> None:
    """Write lines to a file, compressed if it is named so; `age` is in seconds."""
    data = b"".join(one + b"\n" for one in lines)
    with open(path, mode) as file:
        file.write(gzip.compress(data) if path.endswith(".gz") else data)
    if age:
        os.utime(path, (START - age, START - age))


def shown(path: str, count: int | None = None, **wanted: Any) -> list[bytes]:  # noqa: ANN401
    """Return the lines that are read."""
    return list(read(path, LogFilter(**wanted), count, following=False))


def followed(
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    *changes: Callable[[], object],
    count: int = 0,
    **wanted: Any,  # noqa: ANN401
) -> list[bytes]:
    """Return the lines that are read while the log is changed, one change after the other.

    A change is made when there is nothing more to read, instead of a sleep.
    """
    left = [*changes, *[bool] * 3]

    def next_change(_seconds: float) -> None:
        if not left:
            raise EndOfTest
        left.pop(0)()

    monkeypatch.setattr(time, "sleep", next_change)
    lines: list[bytes] = []
    with pytest.raises(EndOfTest):
        lines.extend(collected(read(path, LogFilter(**wanted), count, following=True), lines))
    return lines


def collected(source: Iterator[bytes], lines: list[bytes]) -> Iterator[bytes]:
    """Append lines to a list, which is complete when the source raises."""
    for one in source:
        lines.append(one)
        yield from ()


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


@given(st.lists(st.binary(max_size=20).map(lambda one: one.replace(b"\n", b"")), max_size=20))
def test_reading_backwards_gives_the_same_lines(lines: list[bytes]) -> None:
    """The lines do not depend on the size of blocks, nor on the last line feed."""
    for data in (b"\n".join(lines), b"".join(one + b"\n" for one in lines)):
        fd = os.memfd_create("log")
        os.write(fd, data)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(log_reader, "_BLOCK_BYTES", 7)
            forwards = data.removesuffix(b"\n").split(b"\n") if data else []
            assert shown(f"/proc/self/fd/{fd}") == forwards
        os.close(fd)


def test_a_long_line_is_read_completely(path: str) -> None:
    """A line has no maximum length, and reading it takes linear time."""
    write(path, line(1), b"x" * 30_000_000, line(2))
    lines = shown(path, 3)
    assert [lines[0], len(lines[1]), lines[2]] == [line(1), 30_000_000, line(2)]


def test_a_big_log_is_read_from_its_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading five lines of a large file reads little more than these."""
    with open(path, "wb") as file:
        file.truncate(100_000_000)
    write(path, b"", *map(line, range(6)))
    read, pread = [], os.pread

    def counted(fd: int, size: int, position: int) -> bytes:
        data = pread(fd, size, position)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert shown(path, 5) == [*map(line, range(1, 6))]
    assert 0 < sum(read) < 1_000_000


@pytest.mark.parametrize(
    "names",
    [
        ("tetrad.log.1", "tetrad.log.2", "tetrad.log.3"),
        ("tetrad.log.1", "tetrad.log.2.gz", "tetrad.log.3.gz"),
        ("tetrad.log-20261122", "tetrad.log-20261121.gz", "tetrad.log-20261119.gz"),
        ("tetrad.log.9", "tetrad.log.10", "tetrad.log.11.gz"),
    ],
)
def test_rotated_files_are_read_as_far_back_as_necessary(
    path: str, names: tuple[str, str, str]
) -> None:
    """The lines of several files, some compressed, are one log, the oldest first."""
    write(path, *map(line, range(9, 12)))
    for age, name in enumerate(names):
        start = 6 - 3 * age
        write(path.replace("tetrad.log", name), *map(line, range(start, start + 3)), age=age + 1)
    everything = [*map(line, range(12))]
    assert shown(path, 100) == everything
    assert shown(path, 7) == everything[5:]
    assert shown(path, since=float(START + 4)) == everything[4:]
    assert shown(path, 100, since=float(START + 7)) == everything[7:]


def test_only_necessary_files_are_decompressed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the current file has enough lines, no other file is opened."""
    minutes = [line(0), line(60), line(120)]
    write(path, *minutes)
    write(f"{path}.1.gz", line(0), age=1)
    monkeypatch.setattr(gzip, "open", None)
    assert shown(path, 2) == minutes[1:]
    assert shown(path, 3) == shown(path) == minutes
    assert shown(path, since=START + 60.0) == minutes[1:]


def test_files_of_the_same_time_are_sorted_by_name(path: str) -> None:
    """With equal times, higher numbers and earlier dates in names are older."""
    write(path, line(12))
    numbers = (".2", ".9", ".10", ".11.gz")
    dates = ("-20261122", "-20261121", "-20261119.gz", "-20261118")
    for names in (numbers, dates):
        for start, name in enumerate(reversed(names)):
            write(f"{path}{name}", line(start), age=1)
        assert shown(path, 100) == [*map(line, range(4)), line(12)]
        for name in names:
            os.unlink(f"{path}{name}")


def test_a_log_that_is_renamed_while_it_is_read_is_read_once(path: str) -> None:
    """The current file is recognized under its new name, so that no line is read twice."""
    write(path, line(1), line(2))
    os.link(path, f"{path}.1")
    assert shown(path, 100) == [line(1), line(2)]


def test_a_line_out_of_order_does_not_end_the_search(path: str) -> None:
    """Handlers may write an event a little later: `since` allows for that."""
    write(path, line(4), line(3), line(6), line(4), line(5))
    assert shown(path, since=START + 5.0) == [line(6), line(5)]


def test_other_files_are_not_read(path: str) -> None:
    """A file with a similar name, or a folder, is not a rotated log."""
    write(path, line(1))
    write(f"{path}.d"[:-2] + "x.1", b"another log", age=1)
    os.mkdir(f"{path}.1")
    assert shown(path, 100) == [line(1)]


def test_the_name_of_the_log_is_not_a_pattern(tmp_path: Path) -> None:
    """The rotated files of a log in a folder with brackets are found."""
    folder = tmp_path / "[a]*"
    folder.mkdir()
    path = str(folder / "tetrad.log")
    write(path, line(2))
    write(f"{path}.1", line(1), age=1)
    assert shown(path, 100) == [line(1), line(2)]


def test_a_file_that_is_being_compressed_is_read_once(path: str) -> None:
    """While both files exist, only the uncompressed one is read."""
    write(path, line(3))
    write(f"{path}.1", line(1), line(2), age=2)
    write(f"{path}.1.gz", line(1), line(2), age=1)
    assert shown(path, 100) == [line(1), line(2), line(3)]


@pytest.mark.parametrize("data", [b"", b"not compressed", GZIP_HEADER, GZIP_HEADER + b"\xff" * 9])
def test_a_damaged_file_does_not_hide_the_others(path: str, data: bytes) -> None:
    """A file that cannot be decompressed is ignored."""
    write(path, line(2))
    write(f"{path}.2", line(1), age=2)
    with open(f"{path}.1.gz", "wb") as file:
        file.write(data)
    assert shown(path, 100) == [line(1), line(2)]


def test_the_start_of_an_incomplete_compressed_file_is_read(path: str) -> None:
    """If the disk was full during the compression, the lines before that are read."""
    lines = [*map(line, range(30_000))]
    data = gzip.compress(b"".join(one + b"\n" for one in lines))
    write(path, line(30_000))
    with open(f"{path}.1.gz", "wb") as file:
        file.write(data[: len(data) // 2])
    some = shown(path, 100_000)
    assert some[:1000] == lines[:1000]
    assert some[-1] == line(30_000)


def test_a_missing_log_is_an_error(path: str) -> None:
    """Without following, a missing file raises FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        shown(path, 5)


def test_new_lines_follow_the_last_ones(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier lines come first, then new ones, whether in pieces or several at once."""
    write(path, *map(line, range(5)))

    def write_half() -> None:
        with open(path, "ab") as file:
            file.write(line(6)[:30])

    def write_rest() -> None:
        with open(path, "ab") as file:
            file.write(line(6)[30:] + b"\n" + line(7, level="error") + b"\n\nmore\n")

    lines = followed(
        monkeypatch, path, lambda: write(path, line(5)), write_half, write_rest, count=2
    )
    assert lines == [*map(line, range(3, 7)), line(7, level="error"), b"", b"more"]


def test_filters_apply_to_new_lines(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """New lines are filtered like earlier ones."""
    write(path, line(1), line(2, level="error"))
    more = [line(3), line(4, level="error"), b"junk"]
    lines = followed(monkeypatch, path, lambda: write(path, *more), count=9, level="error")
    assert lines == [line(2, level="error"), line(4, level="error"), b"junk"]


def test_a_log_that_is_not_there_yet_is_waited_for(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lines of a file that is created later are read."""
    assert followed(monkeypatch, path, bool, lambda: write(path, line(1))) == [line(1)]


def test_a_renamed_log_is_read_to_its_end_before_the_next(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is missed that is written just before or after a rotation."""
    write(path, line(0))

    def rotate() -> None:
        write(path, line(1))
        os.rename(path, f"{path}.1")
        write(f"{path}.1", line(2))
        write(path, line(3))

    assert followed(monkeypatch, path, rotate) == [line(1), line(2), line(3)]


def test_a_line_written_just_before_the_rotation_is_read(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was renamed after the last read is read once more."""
    write(path, line(0))
    pread = os.pread

    def read_and_rotate(fd: int, size: int, position: int) -> bytes:
        data = pread(fd, size, position)
        if not data and not os.path.exists(f"{path}.1"):
            write(path, line(1))
            os.rename(path, f"{path}.1")
            write(path, line(2))
        return data

    monkeypatch.setattr(os, "pread", read_and_rotate)
    assert followed(monkeypatch, path) == [line(1), line(2)]


def test_the_old_log_is_read_while_there_is_no_new_one(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer uses the old file until the new one is created."""
    write(path, line(0))
    lines = followed(
        monkeypatch,
        path,
        lambda: os.rename(path, f"{path}.1"),
        lambda: write(f"{path}.1", line(1)),
        lambda: write(path, line(2)),
    )
    assert lines == [line(1), line(2)]


def test_a_truncated_log_is_read_from_its_beginning(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a truncation new lines are read, and the rest of an incomplete one."""
    write(path, *map(line, range(9)))

    def truncate() -> None:
        os.truncate(path, 0)
        write(path, line(10))

    assert followed(monkeypatch, path, truncate) == [line(10)]


def test_a_deleted_log_is_followed_when_it_is_created_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Following waits for the new file."""
    write(path, line(0))
    lines = followed(monkeypatch, path, lambda: os.unlink(path), bool, lambda: write(path, line(1)))
    assert lines == [line(1)]


def test_an_incomplete_line_does_not_continue_in_the_next_file(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The incomplete line of the old file is a line of its own."""
    write(path, line(0))

    def tear() -> None:
        with open(path, "ab") as file:
            file.write(b"torn")

    def rotate() -> None:
        os.rename(path, f"{path}.1")
        write(path, line(1))

    assert followed(monkeypatch, path, tear, rotate) == [b"torn", line(1)]


def test_following_begins_with_complete_lines(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is incomplete when following begins is read once, complete."""
    write(path, line(0))
    with open(path, "ab") as file:
        file.write(line(1)[:20])
    lines = followed(monkeypatch, path, lambda: write(path, line(1)[20:]), count=5)
    assert lines == [line(0), line(1)]


def test_following_keeps_no_file_open(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each rotation the old file is closed."""
    write(path, line(0))

    def rotate() -> None:
        os.rename(path, f"{path}.1")
        write(path, line(0))

    before = len(os.listdir("/proc/self/fd"))
    followed(monkeypatch, path, *[rotate] * 5)
    assert len(os.listdir("/proc/self/fd")) == before


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
