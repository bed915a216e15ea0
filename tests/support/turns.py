"""Turns of tests that run in parallel: one that is marked `alone` runs beside no other."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """Two lock files in a folder that all workers share.

    The lock of the queue keeps the order: while a test waits to be alone, no other test begins.
    """

    def __init__(self, folder: str) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        self._queue = os.open(os.path.join(folder, "turns.queue"), flags, 0o600)
        self._room = os.open(os.path.join(folder, "turns.room"), flags, 0o600)

    @contextlib.contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait until a test may run, and let others wait until it has ended."""
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)
