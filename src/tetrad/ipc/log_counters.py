"""Counters of the events that the logger has written and lost, in a memory file.

The logger and the master both have the file open: the logger counts without waking the master, and
the next logger continues the counts.
"""

from __future__ import annotations

import os
import sys

FILE_BYTES = 4096
"""The size of the file, which is sealed: a page, so that a later version has room for more."""

_BYTES = 8
_COUNTS, _EXIT, _START = 0, 2, 4
"""Where the pairs of numbers begin."""


class LogCounters:
    """Pairs of 64-bit numbers: the events written and lost, the exit and the start of a logger.

    A logger that exits by order records its pid and how many losses it did not report. The next
    logger resets the record. A logger that is ready records its pid.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self) -> tuple[int, int]:
        """Return how many events were written and how many were lost."""
        return self._read(_COUNTS)

    def add(self, written: int, lost: int) -> None:
        """Increase both counts."""
        before = self.read()
        self._write(_COUNTS, before[0] + written, before[1] + lost)

    def record_exit(self, pid: int, unreported: int) -> None:
        """Record that the logger `pid` exits by order, and how many losses it did not report."""
        self._write(_EXIT, pid, unreported)

    @property
    def exited_pid(self) -> int:
        """The pid of the logger that exited by order; 0 if none has, or the next has started."""
        return self._read(_EXIT)[0]

    def record_start(self, pid: int) -> None:
        """Record that the logger `pid` is ready."""
        self._write(_START, pid, 0)

    @property
    def started_pid(self) -> int:
        """The pid of the last logger that was ready; 0 if none was."""
        return self._read(_START)[0]

    def take_unreported(self) -> int:
        """Return the unreported losses of the previous logger, and reset them and its pid."""
        _, unreported = self._read(_EXIT)
        self._write(_EXIT, 0, 0)
        return unreported

    def _read(self, place: int) -> tuple[int, int]:
        data = os.pread(self._fd, 2 * _BYTES, place * _BYTES)
        order = sys.byteorder
        return int.from_bytes(data[:_BYTES], order), int.from_bytes(data[_BYTES:], order)

    def _write(self, place: int, *numbers: int) -> None:
        data = b"".join(number.to_bytes(_BYTES, sys.byteorder) for number in numbers)
        os.pwrite(self._fd, data, place * _BYTES)
