"""Following a log: new lines are read once, across rotation, truncation and deletion."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.written_logs import line, write
from tetrad.cli.log_reader import LogFilter, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class EndOfTest(Exception):  # noqa: N818 - not an error
    """No more changes of the log follow."""


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
