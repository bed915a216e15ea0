"""Files beside the log: rotated by any compressor, and those of other programs."""

from __future__ import annotations

import bz2
import lzma
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.written_logs import START, line, shown, write

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("suffix", "compress"), [("bz2", bz2.compress), ("xz", lzma.compress), ("gz.bak", bytes)]
)
def test_the_content_of_a_rotated_file_decides_how_it_is_read(
    path: str, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    """Whatever its name is."""
    write(path, line(9))
    with open(f"{path}.1.{suffix}", "wb") as file:
        file.write(compress(line(0) + b"\n"))
    assert shown(path, 10) == [line(0), line(9)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pos", b"inode 7\nposition 4242\n"),
        ("1.xz", b"\xfd7zXZ\0\x1b[2J\n"),
        ("1.bz2", b"BZh9\x1b[2J\n"),
        ("swp", b"b0VIM 9.0\0\0\x1b[2J\n" + bytes(4096)),
        ("core", bytes(range(256)) * 100),
        ("empty", b""),
    ],
)
def test_files_that_are_no_log_are_skipped(path: str, name: str, data: bytes) -> None:
    """Position files, compressors that Python lacks, damaged files, files that are no text."""
    write(path, line(9))
    write(f"{path}.2", line(0), age=9)
    with open(f"{path}.{name}", "wb") as file:
        file.write(data)
    os.utime(file.name, (START, START))
    assert shown(path, 10) == [line(0), line(9)]


def test_a_file_that_is_being_compressed_is_read_once_by_any_compressor(path: str) -> None:
    """The compressed one may be incomplete."""
    write(path, line(9))
    write(f"{path}.1", line(0))
    with open(f"{path}.1.xz", "wb") as file:
        file.write(lzma.compress(line(0) + b"\n"))
    assert shown(path, 10) == [line(0), line(9)]
