"""The logger: what comes through the pipe, in whatever pieces, becomes lines of the log."""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.ipc.log_counters import LogCounters
from tetrad.logger import process as program
from tetrad.logger.process import Logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

NOON = 1_795_349_914_123_456_789
"""2026-11-22T12:18:34.123456789Z, in nanoseconds."""


AGAIN = (NOON, NOON + 1_000, NOON + 1_000_000_000)
"""Times that look different in the log."""


@pytest.fixture(autouse=True)
def tally(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogCounters]:
    """Where the logger counts, at a descriptor that is free here."""
    fd = os.memfd_create("tally")
    monkeypatch.setattr(program, "TALLY", fd)
    yield LogCounters(fd)
    os.close(fd)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "tetrad.log"


def orders(path: Path | None, level: str = "info", style: str = "json") -> dict[str, Any]:
    """Say how and where to write."""
    return {"file": None if path is None else str(path), "level": level, "format": style}


def event(
    name: str = "client.command", level: str = "info", moment: int = NOON, **fields: object
) -> bytes:
    """Return an event as it comes through the pipe."""
    return f'\x1e{{"pid":5}}\n{moment} {level} {name} {json.dumps(fields)}\n'.encode()


def without_speaker(said: bytes) -> bytes:
    """Return an event as it comes behind another one of the same write."""
    return said.partition(b"\n")[2]


def order(name: str, **fields: object) -> bytes:
    """Return an order as it comes through the pipe."""
    return f"{NOON} order logger.{name} {json.dumps(fields)}\n".encode()


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, which must all be whole."""
    text = path.read_text("ascii")
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def names(path: Path) -> list[str]:
    """Return the events of a log."""
    return [line["event"] for line in lines(path)]


def test_an_event_becomes_a_line_with_its_time(path: Path) -> None:
    """A line is one JSON object: UTC time, level, event and pid first, then the rest in order."""
    Logger(orders(path)).take(event(client="192.0.2.1:5", command="time"))
    assert path.read_text() == (
        '{"timestamp":"2026-11-22T12:18:34.123456Z","level":"info","event":"client.command",'
        '"pid":5,"client":"192.0.2.1:5","command":"time"}\n'
    )


@pytest.mark.parametrize(
    ("nanoseconds", "stamp"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999, "1970-01-01T00:00:00.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (59_999_999_999, "1970-01-01T00:00:59.999999Z"),
        (NOON, "2026-11-22T12:18:34.123456Z"),
    ],
)
def test_a_time_has_microseconds(path: Path, nanoseconds: int, stamp: str) -> None:
    """No time is rounded into the next second, or loses its zeros."""
    Logger(orders(path)).take(event(moment=nanoseconds))
    assert lines(path)[0]["timestamp"] == stamp


@given(sizes=st.lists(st.integers(1, 300), max_size=8))
def test_lines_that_come_in_pieces_are_put_together(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    """However the pipe cuts it, each event is one line, in order."""
    path = tmp_path_factory.mktemp("log") / "tetrad.log"
    logger = Logger(orders(path))
    data = b"".join(event(f"event{n}", text="é\n") for n in range(4))
    for size in sizes:
        logger.take(data[:size])
        data = data[size:]
    logger.take(data)
    assert names(path) == ["event0", "event1", "event2", "event3"]


def test_nothing_is_written_of_a_line_that_is_not_whole(path: Path) -> None:
    """A line is written when its end has come, and those before it at once."""
    logger = Logger(orders(path))
    logger.take(event("one") + event("two")[:-1])
    assert names(path) == ["one"]
    logger.take(b"\n")
    assert names(path) == ["one", "two"]


@pytest.mark.parametrize(
    ("least", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_events_below_the_level_are_left_out(path: Path, least: str, written: list[str]) -> None:
    """The level is the least that is written, and each line says its own."""
    logger = Logger(orders(path, least))
    logger.take(b"".join(event(level, level) for level in ("debug", "info", "warning", "error")))
    assert [(line["event"], line["level"]) for line in lines(path)] == [(w, w) for w in written]


def test_a_line_is_ascii_whatever_is_in_it(path: Path) -> None:
    """What a client or an operator wrote cannot break a line, a terminal or a reader."""
    text = "é\u2028\U0001f600\x1b[2J\x7f\r\n"
    Logger(orders(path)).take(event(text=text))
    written = path.read_bytes()
    assert written.isascii()
    assert written.count(b"\n") == 1
    assert lines(path)[0]["text"] == text


@pytest.mark.parametrize("style", ["logfmt", "console"])
def test_other_formats_are_ascii_too(path: Path, style: str) -> None:
    """What is not ASCII is escaped in every format."""
    Logger(orders(path, style=style)).take(event(text="é"))
    assert b"xe9" in path.read_bytes()
    assert path.read_bytes().isascii()


def test_logfmt_is_pairs(path: Path) -> None:
    """In logfmt a line is keys and values, with quotes where they are needed."""
    Logger(orders(path, style="logfmt")).take(event(command="a b", more="\n"))
    assert path.read_text() == (
        "timestamp=2026-11-22T12:18:34.123456Z level=info event=client.command pid=5 "
        'command="a b" more=\\n\n'
    )


def test_the_console_is_for_people(path: Path) -> None:
    """On the console a line begins with time and level, and has no colours in a file."""
    Logger(orders(path, style="console")).take(event(command="time"))
    text = path.read_text()
    assert text.startswith("2026-11-22T12:18:34.123456Z [info")
    assert "client.command" in text
    assert text.endswith((" pid=5 command=time\n", " command=time pid=5\n"))
    assert "\x1b" not in text


@pytest.mark.parametrize("style", ["json", "logfmt", "console"])
def test_what_is_said_again_has_its_own_time(path: Path, style: str) -> None:
    """A line that comes again is the same line but for that, whatever else is in it."""
    command = "0000-00-00T00:00:00.000000Z"
    again = [event(moment=moment, command=command) for moment in AGAIN]
    logger = Logger(orders(path, style=style))
    logger.take(again[0] + b"".join(map(without_speaker, again[1:])))
    apart = path.with_name("apart.log")
    for said in again:
        Logger(orders(apart, style=style)).take(said)
    assert path.read_bytes() == apart.read_bytes()
    assert len({line.replace(command, "") for line in path.read_text().splitlines()}) == len(AGAIN)
    assert path.read_text().count(command) == len(AGAIN)


def test_what_another_says_is_the_other_s(path: Path) -> None:
    """The same words of two processes are two lines."""
    Logger(orders(path)).take(event() + event().replace(b'"pid":5', b'"pid":6'))
    assert [line["pid"] for line in lines(path)] == [5, 6]


def test_what_is_said_again_is_written_as_it_is_to_be_by_then(path: Path) -> None:
    """Between the two came an order, in the same write."""
    change = order("configure", **orders(path, style="logfmt"))
    Logger(orders(path)).take(event() + change + without_speaker(event()))
    first, second = path.read_text().splitlines()
    assert first.startswith('{"timestamp":"2026-')
    assert second.startswith("timestamp=2026-")


def test_what_nobody_wants_is_not_written_again_either(path: Path) -> None:
    """Lines below the level leave nothing, as often as they come."""
    logger = Logger(orders(path, "warning"))
    logger.take(event() + without_speaker(event()) + event("last", "error"))
    assert names(path) == ["last"]


def test_without_a_file_lines_go_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """No file is standard error."""
    Logger(orders(None)).take(event("one"))
    assert json.loads(capfd.readouterr().err)["event"] == "one"


def test_another_configuration_applies_from_its_place_on(path: Path) -> None:
    """What came before an order is written as before, what comes behind it as ordered."""
    other = path.with_suffix(".other")
    logger = Logger(orders(path))
    logger.take(
        event("one")
        + event("silent", "debug")
        + order("configure", **orders(other, "debug", "logfmt"))
        + event("two", "debug")
    )
    assert names(path) == ["one"]
    assert other.read_text().split()[1:3] == ["level=debug", "event=two"]


def test_the_file_is_opened_anew_on_order(path: Path) -> None:
    """After the order the log goes on in a new file, which begins by saying so."""
    logger = Logger(orders(path))
    logger.take(event("one"))
    path.rename(path.with_suffix(".1"))
    logger.take(event("late") + order("reopen") + event("two"))
    assert names(path.with_suffix(".1")) == ["one"]
    assert names(path) == ["log.reopened", "late", "log.reopened", "two"]
    assert lines(path)[0]["pid"] == os.getpid()
    assert lines(path)[0]["level"] == "info"


def test_a_file_that_was_moved_away_is_noticed(path: Path) -> None:
    """Without an order, the next line goes where the log belongs."""
    logger = Logger(orders(path))
    logger.take(event("one"))
    path.unlink()
    logger.take(event("two"))
    assert names(path) == ["log.reopened", "two"]


def test_without_a_line_there_is_nothing_to_be_written(path: Path) -> None:
    """A file that was moved away is not made anew for a piece of a line."""
    logger = Logger(orders(path))
    path.unlink()
    logger.take(event("one")[:-1])
    assert not path.exists()


def test_an_order_that_cannot_be_obeyed_says_nothing(path: Path) -> None:
    """A file that cannot be opened anew is written on, and nobody claims otherwise."""
    folder = path.parent / "logs"
    folder.mkdir()
    logger = Logger(orders(folder / "tetrad.log"))
    folder.rename(path.parent / "old")
    logger.take(order("reopen") + event("one"))
    assert names(path.parent / "old" / "tetrad.log") == ["one"]


def test_what_could_not_be_written_is_reported_once_it_can(path: Path) -> None:
    """Lines that found no file are counted, and the count is written ahead of the next line."""
    folder = path.parent / "logs"
    logger = Logger(orders(folder / "tetrad.log"))
    logger.take(event("one") + event("two"))
    logger.take(event("three"))
    folder.mkdir()
    logger.take(event("four"))
    logger.take(event("five"))
    written = lines(folder / "tetrad.log")
    assert [line["event"] for line in written if line["event"] != "log.reopened"] == [
        "log.lost",
        "four",
        "five",
    ]
    (lost,) = (line for line in written if line["event"] == "log.lost")
    assert (lost["count"], lost["level"], lost["pid"]) == (3, "error", os.getpid())


def test_what_is_written_and_lost_is_counted(path: Path, tally: LogCounters) -> None:
    """The counts are of events: what the logger says of itself is not among them."""
    logger = Logger(orders(path / "later" / "tetrad.log", "warning"))
    logger.take(event("one", "error") + event("two", "error"))
    assert tally.read() == (0, 2)
    (path / "later").mkdir(parents=True)
    logger.take(event("three", "error") + event("silent"))
    assert tally.read() == (1, 2)
    Logger(orders(path / "later" / "tetrad.log")).take(event("four"))
    assert tally.read() == (2, 2)


def test_losses_are_reported_when_nothing_else_comes(path: Path) -> None:
    """Once the file is there again, the count is written, and written once."""
    logger = Logger(orders(path / "later" / "tetrad.log"))
    logger.take(event("one"))
    (path / "later").mkdir(parents=True)
    logger.take(b"")
    logger.take(b"")
    assert names(path / "later" / "tetrad.log") == ["log.reopened", "log.lost"]


def test_a_torn_line_of_a_killed_logger_is_mended(path: Path) -> None:
    """A logger that takes the place of one that was killed begins with a line of its own."""
    path.write_bytes(b'{"timestamp":"2026-11-22T16:18')
    Logger(orders(path)).take(event("one"))
    assert names(path) == ["one"]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of a pipe into which events go; the logger reads at the other."""
    reads, writes = os.pipe()
    monkeypatch.setattr(program, "PIPE", reads)
    yield writes
    os.close(reads)
    os.close(writes)


def test_a_logger_that_is_told_to_leave_finishes_a_write(
    path: Path, pipe: int, tally: LogCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its last read has cut it: the next logger begins where a write begins."""
    leave = b'\x1e{"pid":5}\n' + order("leave", pid=os.getpid())
    writes = [event("one"), leave, event("two") + order("reopen"), event("three")]
    read = sum(map(len, writes[:3])) - 20
    monkeypatch.setattr(program, "_READ_BYTES", read)
    for data in writes:
        os.write(pipe, data)
    Logger(orders(path)).run()
    assert names(path) == ["one", "two", "log.reopened", "three"]
    assert (tally.exited_pid, tally.take_unreported()) == (os.getpid(), 0)


def test_a_logger_leaves_when_there_is_nothing_more(
    path: Path, pipe: int, tally: LogCounters
) -> None:
    """It does not wait for another event, and does not heed what another was told."""
    os.write(pipe, event("one") + order("leave", pid=1) + event("two"))
    os.write(pipe, order("leave", pid=os.getpid()))
    Logger(orders(path)).run()
    assert names(path) == ["one", "two"]
    assert tally.exited_pid == os.getpid()


def test_what_comes_is_written_before_others_are_waited_for(
    path: Path, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that comes after a pause does not wait: who tails the log sees it at once."""

    def rest() -> None:
        raise RestError

    class RestError(Exception):
        """The logger would rest now."""

    monkeypatch.setattr(program, "_rest", rest)
    os.write(pipe, event("one"))
    with pytest.raises(RestError):
        Logger(orders(path)).run()
    assert names(path) == ["one"]


def test_a_pipe_that_fills_is_read_at_once(
    path: Path, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are given time to gather only where there is room for them."""
    line = event("one")
    count = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) // 4 // len(line)
    monkeypatch.setattr(program, "REST_SECONDS", 3600.0)
    monkeypatch.setattr(program, "_READ_BYTES", len(line) * count)
    os.write(pipe, line * count)
    os.write(pipe, line * (count - 10) + order("leave", pid=os.getpid()))
    Logger(orders(path)).run()
    assert names(path) == ["one"] * (2 * count - 10)


def test_the_next_logger_reports_what_the_one_before_could_not(path: Path, pipe: int) -> None:
    """Lines that a logger that has left could not write are reported by the next, once."""
    folder = path.parent / "logs"
    os.write(pipe, event("one") + event("two") + order("leave", pid=os.getpid()))
    Logger(orders(folder / "tetrad.log")).run()
    folder.mkdir()
    for name in ("three", "four"):
        Logger(orders(folder / "tetrad.log")).take(event(name))
    written = lines(folder / "tetrad.log")
    assert [(line["event"], line.get("count")) for line in written] == [
        ("log.lost", 2),
        ("three", None),
        ("four", None),
    ]
