"""How many events the logger has written and lost, counted where the master can look it up.

A file in memory that both have open: the logger counts without waking anybody, and its replacement
goes on counting.
"""

from __future__ import annotations

import os
import sys

_BYTES = 8


class Tally:
    """The two counts, in a file of two numbers of 64 bits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self) -> tuple[int, int]:
        """Return how many were written and how many lost."""
        data = os.pread(self._fd, 2 * _BYTES, 0)
        order = sys.byteorder
        return int.from_bytes(data[:_BYTES], order), int.from_bytes(data[_BYTES:], order)

    def add(self, written: int, lost: int) -> None:
        """Count some more."""
        before = self.read()
        after = [before[0] + written, before[1] + lost]
        os.pwrite(self._fd, b"".join(n.to_bytes(_BYTES, sys.byteorder) for n in after), 0)
