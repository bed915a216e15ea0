"""How many events the logger has written and lost, counted where the master can look it up.

A file in memory that both have open: the logger counts without waking anybody, and its replacement
goes on counting.
"""

from __future__ import annotations

import os
import sys

_BYTES = 8


class LogCounters:
    """Numbers of 64 bits: written, lost; and of who left on purpose, its pid and what it owes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self) -> tuple[int, int]:
        """Return how many were written and how many lost."""
        return self._pair(0)

    def add(self, written: int, lost: int) -> None:
        """Count some more."""
        before = self.read()
        self._write(0, before[0] + written, before[1] + lost)

    def record_exit(self, pid: int, owed: int) -> None:
        """Note that the logger `pid` has finished, and how many losses it could not report."""
        self._write(2, pid, owed)

    @property
    def exited_pid(self) -> int:
        """The pid of the logger that has finished, until the next one begins; 0 if none has."""
        return self._pair(2)[0]

    def take_unreported(self) -> int:
        """Return how many losses are still to be reported, once."""
        _, owed = self._pair(2)
        self._write(2, 0, 0)
        return owed

    def _pair(self, place: int) -> tuple[int, int]:
        data = os.pread(self._fd, 2 * _BYTES, place * _BYTES)
        order = sys.byteorder
        return int.from_bytes(data[:_BYTES], order), int.from_bytes(data[_BYTES:], order)

    def _write(self, place: int, *numbers: int) -> None:
        data = b"".join(number.to_bytes(_BYTES, sys.byteorder) for number in numbers)
        os.pwrite(self._fd, data, place * _BYTES)
