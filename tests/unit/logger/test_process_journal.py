"""Lines of the logger when its standard error is the journal: a priority, and no timestamp."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.logger.test_process import counters, event, lines, log_config, order
from tetrad.logger import file as log_file
from tetrad.logger import process as program
from tetrad.logger.process import Logger
from tetrad.system import journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["counters"]

ZERO_TIME = "0000-00-00T00:00:00.000000Z"
"""What stands for the time in a line that is rendered once and written with several times."""


class Stream:
    """A pipe in the place of standard error."""

    def __init__(self) -> None:
        self._reads, self.fd = os.pipe()
        status = os.fstat(self.fd)
        self.name = f"{status.st_dev}:{status.st_ino}"

    def lines(self) -> list[str]:
        """Return what has been written."""
        return os.read(self._reads, 65536).decode().splitlines()

    def close(self) -> None:
        """Close both ends."""
        os.close(self._reads)
        os.close(self.fd)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """Return a stream that the logger takes for standard error, and that is the journal."""
    stream = Stream()
    monkeypatch.setattr(log_file, "STANDARD_ERROR", stream.fd)
    monkeypatch.setattr(program, "STANDARD_ERROR", stream.fd)
    monkeypatch.setenv("JOURNAL_STREAM", stream.name)
    yield stream
    stream.close()


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)]
)
@pytest.mark.parametrize("style", ["json", "logfmt", "console"])
def test_each_line_has_its_priority(stream: Stream, style: str, level: str, priority: int) -> None:
    """In every format, also when the same event occurs again."""
    logger = Logger(log_config(None, "debug", style))
    logger.feed(event("one", level) + event("one", level))
    written = stream.lines()
    assert len(written) == 2
    assert all(line.startswith(f"<{priority}>") for line in written)
    assert all("one" in line and "2026" not in line and "0000" not in line for line in written)


def test_a_line_in_json_has_no_timestamp(stream: Stream) -> None:
    """The other fields are as in a file."""
    Logger(log_config(None)).feed(event("one", "warning", count=3))
    (line,) = stream.lines()
    fields = json.loads(line.removeprefix("<4>"))
    assert fields == {"level": "warning", "event": "one", "pid": 5, "count": 3}


def test_a_text_that_looks_like_a_time_stays(stream: Stream) -> None:
    """Only the field of the logger is replaced."""
    Logger(log_config(None)).feed(event("one", stderr=ZERO_TIME))
    assert ZERO_TIME in stream.lines()[0]


def test_a_health_check_has_the_priority_of_debug(stream: Stream) -> None:
    """The priority is that of the level that is written."""
    data = event("one").replace(b'{"pid":5}', b'{"pid":5,"check":true}')
    Logger(log_config(None, "debug")).feed(data)
    assert stream.lines()[0].startswith("<7>")


def test_another_stream_gets_timestamps(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error was redirected, for example to a file, and JOURNAL_STREAM was inherited."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    Logger(log_config(None)).feed(event("one"))
    assert stream.lines()[0].startswith('{"timestamp":"2026-11-22T')


def test_a_log_file_gets_timestamps(stream: Stream, tmp_path: Path) -> None:
    """Also if a reload switches to it, and back."""
    path = tmp_path / "tetrad.log"
    logger = Logger(log_config(None))
    logger.feed(event("one") + order("configure", **log_config(path)) + event("two"))
    logger.feed(order("configure", **log_config(None)) + event("three"))
    assert [line["event"] for line in lines(path)] == ["two"]
    assert "timestamp" in lines(path)[0]
    assert [line[:3] for line in stream.lines()] == ["<6>", "<6>"]


def test_a_closed_descriptor_is_not_the_journal() -> None:
    """There is nothing to compare."""
    assert not journal.is_journal(-1)
