"""The count of what was logged, which the logger keeps and the master reads."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from daemons import until
from tetrad.ipc.log_counters import LogCounters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import MakeDaemon
    from daemons import Daemon


@pytest.fixture
def fd() -> Iterator[int]:
    """Return an empty file in memory."""
    fd = os.memfd_create("tally")
    yield fd
    os.close(fd)


def has_all_lines(daemon: Daemon) -> bool:
    """Tell whether as many events are counted as the log has lines."""
    counted: int = daemon.status()["log"]["written"]
    return counted == len(daemon.events())


def test_nothing_is_counted_at_first(fd: int) -> None:
    """A file that nobody has written to means none."""
    assert LogCounters(fd).read() == (0, 0)


def test_counts_add_up(fd: int) -> None:
    """What is written and what is lost is counted apart."""
    tally = LogCounters(fd)
    for written, lost in [(1, 0), (0, 2), (500, 30), (0, 0)]:
        tally.add(written, lost)
    assert tally.read() == (501, 32)


def test_counts_outgrow_32_bits(fd: int) -> None:
    """A daemon that logs for years does not begin anew at four thousand million."""
    tally = LogCounters(fd)
    tally.add(2**32 - 1, 2**40)
    tally.add(1, 1)
    assert tally.read() == (2**32, 2**40 + 1)


def test_another_descriptor_sees_the_same(fd: int) -> None:
    """Master and logger have a descriptor each, and where one reads does not move the other."""
    other = os.dup(fd)
    try:
        LogCounters(fd).add(1, 2)
        LogCounters(other).add(3, 4)
        assert LogCounters(fd).read() == LogCounters(other).read() == (4, 6)
    finally:
        os.close(other)


def test_a_logger_that_leaves_says_so_and_what_it_owes(fd: int) -> None:
    """Until the next one takes the debt over, once; the counts are not touched by that."""
    tally = LogCounters(fd)
    tally.add(3, 4)
    assert (tally.exited_pid, tally.take_unreported()) == (0, 0)
    tally.record_exit(4711, 2)
    assert (tally.exited_pid, tally.take_unreported()) == (4711, 2)
    assert (tally.exited_pid, tally.take_unreported(), tally.read()) == (0, 0, (3, 4))


def test_every_line_of_the_log_is_counted(daemon: MakeDaemon) -> None:
    """The number of events written is the number of lines in the file."""
    served = daemon()
    for _ in range(3):
        served.served().quit()
    served.wait_for("client.disconnected", count=3)
    until(lambda: has_all_lines(served), "a count of all lines")


def test_the_next_logger_goes_on_counting(daemon: MakeDaemon) -> None:
    """A logger that was killed leaves its count to its replacement."""
    served = daemon()
    served.served()
    served.wait_for("client.command")
    os.kill(served.logger, signal.SIGKILL)
    served.served()
    served.wait_for("client.command", count=2)
    until(lambda: has_all_lines(served), "a count of all lines")


def test_what_a_full_disk_takes_is_counted_as_lost(daemon: MakeDaemon) -> None:
    """Events that could not be written are counted, and never as written."""
    served = daemon(log={"file": "/dev/full"})
    served.served()
    log = until(
        lambda: (log := served.status()["log"]) and log["lost"] >= 4 and log, "four lost events"
    )
    assert log["written"] == 0
