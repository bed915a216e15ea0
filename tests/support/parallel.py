"""How tests run in parallel: which run in one process, and which run beside no other."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from collections.abc import Iterator


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """The tests of a file run in one process; so do those in tests/systemd: one container."""

    def _split_scope(self, nodeid: str) -> str:
        """Return what tests of one process have in common; the scheduler's own is the file."""
        folder = "tests/systemd/"
        return folder if nodeid.startswith(folder) else str(super()._split_scope(nodeid))


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
