"""What handlers tell their master, in records of 16 bytes through one pipe.

SIGCHLD is ignored, so no exit status tells a handler that finished from one that was killed: the
one that finished has said so before it went.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE = "i"
"""The client is gone, and the handler waits for the next one."""

GONE = "g"
"""The client, if there was one, is gone, and the handler leaves."""

_BYTES = 16
_BATCH = 1024
_MOST_LOST = 9_999_999


def send(fd: int, kind: str, pid: int, lost: int) -> None:
    """Tell the master; `lost` is how many events this handler could not log."""
    try:
        os.write(fd, b"%07d%b%07d\n" % (pid, kind.encode(), min(lost, _MOST_LOST)))
    except OSError:
        pass  # no master, no need


def receive(fd: int) -> Iterator[tuple[int, str, int]]:
    """Return what is there as pid, kind and lost. A pipe tears no record of this size."""
    try:
        data = os.read(fd, _BYTES * _BATCH)
    except BlockingIOError:
        return
    for at in range(0, len(data), _BYTES):
        record = data[at : at + _BYTES].decode()
        yield int(record[:7]), record[7], int(record[8:15])
