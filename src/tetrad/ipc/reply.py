"""Send a reply to an operator's command without making the master wait for its reader."""

from __future__ import annotations

import os
import select
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Fork = Callable[[Callable[[], object], int], object]
    """Forks a child that calls a function and keeps one descriptor. Raises OSError."""

REPLY_TIMEOUT_SECONDS = 2.0
"""How long a child waits for the reader of a reply."""


def send_reply(fork: Fork, fd: int, data: bytes) -> None:
    """Write what fits at once; a child writes the rest. Raises OSError."""
    os.set_blocking(fd, False)
    try:
        data = data[os.write(fd, data) :]
    except BlockingIOError:
        pass
    if data:
        fork(lambda: write_with_timeout(fd, data), fd)


def write_with_timeout(fd: int, data: bytes) -> None:
    """Write all of it, unless the reader closes or takes too long. Blocks: for a child only."""
    os.set_blocking(fd, False)
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    deadline = monotonic() + REPLY_TIMEOUT_SECONDS
    try:
        while data and poll.poll(max(0.0, deadline - monotonic()) * 1000):
            data = data[os.write(fd, data) :]
    except OSError:
        pass
