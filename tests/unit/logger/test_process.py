"""The logger process: the data of the event pipe, in any pieces, becomes lines of the log."""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.ipc.log_counters import LogCounters
from tetrad.logger import process as program
from tetrad.logger.process import Logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = 1_795_349_914_123_456_789
"""2026-11-22T12:18:34.123456789Z, in nanoseconds."""


MOMENTS = (NOON, NOON + 1_000, NOON + 1_000_000_000)
"""Moments with different timestamps."""


@pytest.fixture(autouse=True)
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogCounters]:
    """Return the logger's counters, at a descriptor that is free in the test process."""
    fd = os.memfd_create("counters")
    monkeypatch.setattr(program, "COUNTERS", fd)
    yield LogCounters(fd)
    os.close(fd)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the log."""
    return tmp_path / "tetrad.log"


def log_config(path: Path | None, level: str = "info", style: str = "json") -> dict[str, Any]:
    """Return the configuration of a log."""
    return {"file": None if path is None else str(path), "level": level, "format": style}


def event(
    name: str = "client.command", level: str = "info", moment: int = NOON, **fields: object
) -> bytes:
    """Return a write with one event."""
    return f'\x1e{{"pid":5}}\n{moment} {level} {name} {json.dumps(fields)}\n'.encode()


def without_context(data: bytes) -> bytes:
    """Return the event of a write without its context line."""
    return data.partition(b"\n")[2]


def order(name: str, **fields: object) -> bytes:
    """Return the line of an order."""
    return f"{NOON} order logger.{name} {json.dumps(fields)}\n".encode()


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, which must all be complete."""
    text = path.read_text("ascii")
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def names(path: Path) -> list[str]:
    """Return the names of a log's events."""
    return [line["event"] for line in lines(path)]


def test_an_event_becomes_a_line_with_its_time(path: Path) -> None:
    """A line is a JSON object: UTC time, level, event, pid, then the other fields in order."""
    Logger(log_config(path)).feed(event(client="192.0.2.1:5", command="time"))
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
    """A timestamp is rounded down and keeps its zeros."""
    Logger(log_config(path)).feed(event(moment=nanoseconds))
    assert lines(path)[0]["timestamp"] == stamp


@given(sizes=st.lists(st.integers(1, 300), max_size=8))
def test_lines_are_reassembled_from_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    """Each event is one line, in order, wherever a read ends."""
    path = tmp_path_factory.mktemp("log") / "tetrad.log"
    logger = Logger(log_config(path))
    data = b"".join(event(f"event{n}", text="é\n") for n in range(4))
    for size in sizes:
        logger.feed(data[:size])
        data = data[size:]
    logger.feed(data)
    assert names(path) == ["event0", "event1", "event2", "event3"]


def test_a_partial_line_is_not_written(path: Path) -> None:
    """A line is written when it is complete; the lines before it are written at once."""
    logger = Logger(log_config(path))
    logger.feed(event("one") + event("two")[:-1])
    assert names(path) == ["one"]
    logger.feed(b"\n")
    assert names(path) == ["one", "two"]


@pytest.mark.parametrize(
    ("minimum", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_events_below_the_level_are_not_written(
    path: Path, minimum: str, written: list[str]
) -> None:
    """Events of the configured level and above are written, each with its own level."""
    logger = Logger(log_config(path, minimum))
    logger.feed(b"".join(event(level, level) for level in ("debug", "info", "warning", "error")))
    assert [(line["event"], line["level"]) for line in lines(path)] == [(w, w) for w in written]


def test_a_line_is_ascii(path: Path) -> None:
    """Text of a client or an operator is escaped: it cannot affect lines or terminals."""
    text = "é\u2028\U0001f600\x1b[2J\x7f\r\n"
    Logger(log_config(path)).feed(event(text=text))
    written = path.read_bytes()
    assert written.isascii()
    assert written.count(b"\n") == 1
    assert lines(path)[0]["text"] == text


@pytest.mark.parametrize("style", ["logfmt", "console"])
def test_other_formats_are_ascii(path: Path, style: str) -> None:
    """Characters beyond ASCII are escaped in every format."""
    Logger(log_config(path, style=style)).feed(event(text="é"))
    assert b"xe9" in path.read_bytes()
    assert path.read_bytes().isascii()


def test_logfmt_is_keys_and_values(path: Path) -> None:
    """In logfmt a line is keys and values, in quotes where needed."""
    Logger(log_config(path, style="logfmt")).feed(event(command="a b", more="\n"))
    assert path.read_text() == (
        "timestamp=2026-11-22T12:18:34.123456Z level=info event=client.command pid=5 "
        'command="a b" more=\\n\n'
    )


def test_the_console_format_is_readable(path: Path) -> None:
    """A line begins with time and level, and has no colours in a file."""
    Logger(log_config(path, style="console")).feed(event(command="time"))
    text = path.read_text()
    assert text.startswith("2026-11-22T12:18:34.123456Z [info")
    assert "client.command" in text
    assert text.endswith((" pid=5 command=time\n", " command=time pid=5\n"))
    assert "\x1b" not in text


@pytest.mark.parametrize("style", ["json", "logfmt", "console"])
def test_a_repeated_event_has_its_own_time(path: Path, style: str) -> None:
    """Only the timestamp differs, even if a field contains the placeholder of the time."""
    command = "0000-00-00T00:00:00.000000Z"
    writes = [event(moment=moment, command=command) for moment in MOMENTS]
    logger = Logger(log_config(path, style=style))
    logger.feed(writes[0] + b"".join(map(without_context, writes[1:])))
    separate = path.with_name("separate.log")
    for data in writes:
        Logger(log_config(separate, style=style)).feed(data)
    assert path.read_bytes() == separate.read_bytes()
    assert len({line.replace(command, "") for line in path.read_text().splitlines()}) == len(
        MOMENTS
    )
    assert path.read_text().count(command) == len(MOMENTS)


def test_the_same_event_of_two_processes_is_two_lines(path: Path) -> None:
    """Each has the pid of its own context."""
    Logger(log_config(path)).feed(event() + event().replace(b'"pid":5', b'"pid":6'))
    assert [line["pid"] for line in lines(path)] == [5, 6]


def test_a_repeated_event_follows_a_new_configuration(path: Path) -> None:
    """The order is between the two events, in the same write."""
    change = order("configure", **log_config(path, style="logfmt"))
    Logger(log_config(path)).feed(event() + change + without_context(event()))
    first, second = path.read_text().splitlines()
    assert first.startswith('{"timestamp":"2026-')
    assert second.startswith("timestamp=2026-")


def test_a_repeated_event_below_the_level_is_not_written(path: Path) -> None:
    """Not even its repetition is."""
    logger = Logger(log_config(path, "warning"))
    logger.feed(event() + without_context(event()) + event("last", "error"))
    assert names(path) == ["last"]


def test_without_a_file_lines_go_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """`file` None is standard error."""
    Logger(log_config(None)).feed(event("one"))
    assert json.loads(capfd.readouterr().err)["event"] == "one"


def test_a_new_configuration_applies_to_later_events(path: Path) -> None:
    """Events before the order are written as before, events after it as ordered."""
    other = path.with_suffix(".other")
    logger = Logger(log_config(path))
    logger.feed(
        event("one")
        + event("silent", "debug")
        + order("configure", **log_config(other, "debug", "logfmt"))
        + event("two", "debug")
    )
    assert names(path) == ["one"]
    assert other.read_text().split()[1:3] == ["level=debug", "event=two"]


def test_the_file_is_reopened_by_order(path: Path) -> None:
    """After the order the log continues in a new file, which begins with `log.reopened`."""
    logger = Logger(log_config(path))
    logger.feed(event("one"))
    path.rename(path.with_suffix(".1"))
    logger.feed(event("late") + order("reopen") + event("two"))
    assert names(path.with_suffix(".1")) == ["one"]
    assert names(path) == ["log.reopened", "late", "log.reopened", "two"]
    assert lines(path)[0]["pid"] == os.getpid()
    assert lines(path)[0]["level"] == "info"


def test_a_moved_file_is_detected(path: Path) -> None:
    """Without an order, the next line is in a new file at the configured path."""
    logger = Logger(log_config(path))
    logger.feed(event("one"))
    path.unlink()
    logger.feed(event("two"))
    assert names(path) == ["log.reopened", "two"]


def test_a_partial_line_does_not_reopen_the_file(path: Path) -> None:
    """A file that was removed is not created for it."""
    logger = Logger(log_config(path))
    path.unlink()
    logger.feed(event("one")[:-1])
    assert not path.exists()


def test_a_failed_reopen_is_not_logged_as_one(path: Path) -> None:
    """The open file stays in use, without `log.reopened`."""
    folder = path.parent / "logs"
    folder.mkdir()
    logger = Logger(log_config(folder / "tetrad.log"))
    folder.rename(path.parent / "old")
    logger.feed(order("reopen") + event("one"))
    assert names(path.parent / "old" / "tetrad.log") == ["one"]


def test_losses_are_reported_when_the_log_is_writable_again(path: Path) -> None:
    """Lines without a file are counted, and the count is written before the next line."""
    folder = path.parent / "logs"
    logger = Logger(log_config(folder / "tetrad.log"))
    logger.feed(event("one") + event("two"))
    logger.feed(event("three"))
    folder.mkdir()
    logger.feed(event("four"))
    logger.feed(event("five"))
    written = lines(folder / "tetrad.log")
    assert [line["event"] for line in written if line["event"] != "log.reopened"] == [
        "log.lost",
        "four",
        "five",
    ]
    (lost,) = (line for line in written if line["event"] == "log.lost")
    assert (lost["count"], lost["level"], lost["pid"]) == (3, "error", os.getpid())


def test_written_and_lost_events_are_counted(path: Path, counters: LogCounters) -> None:
    """Events of the logger itself are not counted."""
    logger = Logger(log_config(path / "later" / "tetrad.log", "warning"))
    logger.feed(event("one", "error") + event("two", "error"))
    assert counters.read() == (0, 2)
    (path / "later").mkdir(parents=True)
    logger.feed(event("three", "error") + event("silent"))
    assert counters.read() == (1, 2)
    Logger(log_config(path / "later" / "tetrad.log")).feed(event("four"))
    assert counters.read() == (2, 2)


def test_losses_are_reported_without_further_events(path: Path) -> None:
    """When the file can be created, the count is written once."""
    logger = Logger(log_config(path / "later" / "tetrad.log"))
    logger.feed(event("one"))
    (path / "later").mkdir(parents=True)
    logger.feed(b"")
    logger.feed(b"")
    assert names(path / "later" / "tetrad.log") == ["log.reopened", "log.lost"]


def test_a_partial_line_of_a_killed_logger_is_removed(path: Path) -> None:
    """The next logger begins with a line of its own."""
    path.write_bytes(b'{"timestamp":"2026-11-22T16:18')
    Logger(log_config(path)).feed(event("one"))
    assert names(path) == ["one"]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the writing end of the event pipe of a logger."""
    reads, writes = os.pipe()
    monkeypatch.setattr(program, "PIPE", reads)
    yield writes
    os.close(reads)
    os.close(writes)


def test_a_logger_that_exits_by_order_reads_to_the_end_of_a_write(
    path: Path, pipe: int, counters: LogCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its last read ended inside: the next logger begins where a write begins."""
    exit_order = b'\x1e{"pid":5}\n' + order("leave", pid=os.getpid())
    writes = [event("one"), exit_order, event("two") + order("reopen"), event("three")]
    monkeypatch.setattr(program, "_READ_BYTES", sum(map(len, writes[:3])) - 20)
    for data in writes:
        os.write(pipe, data)
    Logger(log_config(path)).run()
    assert names(path) == ["one", "two", "log.reopened", "three"]
    assert (counters.exited_pid, counters.take_unreported()) == (os.getpid(), 0)


def test_a_logger_exits_when_the_pipe_is_empty(
    path: Path, pipe: int, counters: LogCounters
) -> None:
    """It waits for no further event, and ignores the order to another logger."""
    os.write(pipe, event("one") + order("leave", pid=1) + event("two"))
    os.write(pipe, order("leave", pid=os.getpid()))
    Logger(log_config(path)).run()
    assert names(path) == ["one", "two"]
    assert counters.exited_pid == os.getpid()


def test_a_batch_is_written_before_the_pause(
    path: Path, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event after an idle time does not wait: `tail -f` shows it at once."""

    def pause() -> None:
        raise PauseError

    class PauseError(Exception):
        """The logger would pause now."""

    monkeypatch.setattr(program, "_pause", pause)
    os.write(pipe, event("one"))
    with pytest.raises(PauseError):
        Logger(log_config(path)).run()
    assert names(path) == ["one"]


def test_a_pipe_that_fills_is_read_without_a_pause(
    path: Path, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events collect in the pipe only while it has room for them."""
    line = event("one")
    count = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) // 4 // len(line)
    monkeypatch.setattr(program, "BATCH_SECONDS", 3600.0)
    monkeypatch.setattr(program, "_READ_BYTES", len(line) * count)
    os.write(pipe, line * count)
    os.write(pipe, line * (count - 10) + order("leave", pid=os.getpid()))
    Logger(log_config(path)).run()
    assert names(path) == ["one"] * (2 * count - 10)


def test_the_next_logger_reports_the_losses_of_the_previous_one(path: Path, pipe: int) -> None:
    """It reports them once."""
    folder = path.parent / "logs"
    os.write(pipe, event("one") + event("two") + order("leave", pid=os.getpid()))
    Logger(log_config(folder / "tetrad.log")).run()
    folder.mkdir()
    for name in ("three", "four"):
        Logger(log_config(folder / "tetrad.log")).feed(event(name))
    written = lines(folder / "tetrad.log")
    assert [(line["event"], line.get("count")) for line in written] == [
        ("log.lost", 2),
        ("three", None),
        ("four", None),
    ]
