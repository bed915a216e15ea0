"""The counters of events, which the logger writes and the master reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tetrad.ipc.log_counters import LogCounters

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fd() -> Iterator[int]:
    """Return an empty memory file."""
    fd = os.memfd_create("counters")
    yield fd
    os.close(fd)


def test_the_counts_begin_at_zero(fd: int) -> None:
    """An empty file means no events."""
    assert LogCounters(fd).read() == (0, 0)


def test_counts_add_up(fd: int) -> None:
    """Written and lost events are counted separately."""
    counters = LogCounters(fd)
    for written, lost in [(1, 0), (0, 2), (500, 30), (0, 0)]:
        counters.add(written, lost)
    assert counters.read() == (501, 32)


def test_counts_outgrow_32_bits(fd: int) -> None:
    """The counts of a daemon that logs for years do not wrap at 4,294,967,296."""
    counters = LogCounters(fd)
    counters.add(2**32 - 1, 2**40)
    counters.add(1, 1)
    assert counters.read() == (2**32, 2**40 + 1)


def test_another_descriptor_reads_the_same_counts(fd: int) -> None:
    """Master and logger have one descriptor each, and share no file offset."""
    other = os.dup(fd)
    try:
        LogCounters(fd).add(1, 2)
        LogCounters(other).add(3, 4)
        assert LogCounters(fd).read() == LogCounters(other).read() == (4, 6)
    finally:
        os.close(other)


def test_a_logger_that_exits_records_its_unreported_losses(fd: int) -> None:
    """The next logger takes them once; the counts do not change."""
    counters = LogCounters(fd)
    counters.add(3, 4)
    assert (counters.exited_pid, counters.take_unreported()) == (0, 0)
    counters.record_exit(4711, 2)
    assert (counters.exited_pid, counters.take_unreported()) == (4711, 2)
    assert (counters.exited_pid, counters.take_unreported(), counters.read()) == (0, 0, (3, 4))
