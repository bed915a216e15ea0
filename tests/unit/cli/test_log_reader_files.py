"""From which files a log is read: backwards, from rotated and compressed files."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.written_logs import START, line, shown, write
from tetrad.cli import log_files, log_reader

if TYPE_CHECKING:
    from pathlib import Path

GZIP_HEADER = gzip.compress(b"", mtime=0)[:10]


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
    write(path, line(1), b"x" * 3_000_000, line(2))
    lines = shown(path, 3)
    assert [lines[0], len(lines[1]), lines[2]] == [line(1), 3_000_000, line(2)]


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
    monkeypatch.setattr(log_files, "unpacked", None)
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
    lines = [*map(line, range(5_000))]
    data = gzip.compress(b"".join(one + b"\n" for one in lines))
    write(path, line(5_000))
    with open(f"{path}.1.gz", "wb") as file:
        file.write(data[: len(data) // 2])
    some = shown(path, 10_000)
    assert some[:1000] == lines[:1000]
    assert some[-1] == line(5_000)


def test_a_missing_log_is_an_error(path: str) -> None:
    """Without following, a missing file raises FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        shown(path, 5)
