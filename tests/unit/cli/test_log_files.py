"""Names of rotated files, and the order in which they are read."""

from __future__ import annotations

import lzma
import os

import pytest

from tests.support.written_logs import START, line, shown, write
from tetrad.cli import log_files

ROTATED = [
    ["tetrad.log.1", "tetrad.log.2.gz", "tetrad.log.10.Z"],
    ["tetrad.1.log", "tetrad.2.log.gz", "tetrad.10.log.lzma"],
    ["tetrad.log.1.old", "tetrad.log.2.old", "tetrad.log.10.old"],
    ["tetrad.log-20261201", "tetrad.log-20261122.gz", "tetrad.log-20261110.lz4"],
    ["tetrad-20261201.log", "tetrad-20261122.log.gz", "tetrad-20261110.log.zst"],
    ["tetrad-2026-12-01.log", "tetrad-2026-11-22.log", "tetrad-2026-11-10.log"],
    ["tetrad.2026-12-01.log", "tetrad.2026-11-22.log", "tetrad.2026-11-10.log"],
    ["tetrad.log-2026120103", "tetrad.log-2026120102", "tetrad.log-2026113023"],
    ["tetrad.log-20261201-1796083200", "tetrad.log-20261201-1796079600"],
    ["tetrad-1796083200.log", "tetrad-1796079600.log"],
]
"""Names by options of logrotate (`extension`, `addextension`, `dateext`), the latest first."""


@pytest.mark.parametrize("names", ROTATED, ids=lambda names: names[0])
def test_rotated_files_are_found_by_every_scheme(path: str, names: list[str]) -> None:
    """Files of the same time are sorted by their number or their date."""
    folder = os.path.dirname(path)
    for name in sorted(names):
        write(os.path.join(folder, name), age=9)
    assert [os.path.basename(file) for file in log_files.rotated(path)] == names


@pytest.mark.parametrize(
    "name",
    [
        "tetrad-blue.log",
        "tetrad-2.log",
        "tetrad-65000.log",
        "tetrad.65000.log",
        "tetrad-20261122-blue.log",
        "tetrad.yaml",
        "tetrad",
        "xtetrad.log.1",
    ],
)
def test_the_log_of_another_daemon_is_none_of_them(path: str, name: str) -> None:
    """A name, a number or a port after the name of the log."""
    write(path, line(9))
    write(os.path.join(os.path.dirname(path), name), line(1), age=9)
    assert shown(path, 10) == [line(9)]


def test_streams_of_xz_and_lzma_are_read_to_their_end(path: str) -> None:
    """Also several in one file, with padding between them."""
    write(path, line(9))
    lines = [line(number) for number in range(5_000)]
    text = b"".join(one + b"\n" for one in lines)
    start, end = text[: len(text) // 2], text[len(text) // 2 :]
    for data in (
        lzma.compress(start) + bytes(8) + lzma.compress(end),
        lzma.compress(text, format=lzma.FORMAT_ALONE),
    ):
        with open(f"{path}.1.xz", "wb") as file:
            file.write(data)
        os.utime(file.name, (START, START))
        assert shown(path, 10_000) == [*lines, line(9)]


def test_an_xz_file_that_needs_much_memory_is_skipped(path: str) -> None:
    """The size of its dictionary is limited."""
    write(path, line(9))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}]
    with open(f"{path}.1.xz", "wb") as file:
        file.write(lzma.compress(line(1) + b"\n", filters=filters))
    assert shown(path, 10) == [line(9)]
