"""What handlers tell their master, in records of 20 bytes through one pipe.

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

_BYTES = 20
_KIND_AT, _COUNT_AT = 12, 13
_BATCH = 1024
_MOST_LOST = 999_999


def record(kind: str, number: int, lost: int) -> bytes:
    """Write a notice of handler `number`; `lost` is how many events it could not log."""
    return b"%012d%b%06d\n" % (number, kind.encode(), min(lost, _MOST_LOST))


def with_lost(notice: bytes, lost: int) -> bytes:
    """Return a notice with another count of lost events."""
    return notice[:_COUNT_AT] + b"%06d\n" % min(lost, _MOST_LOST)


def gone(notice: bytes) -> bytes:
    """Return a notice that says that its handler leaves."""
    return notice[:_KIND_AT] + GONE.encode() + notice[_COUNT_AT:]


def send(fd: int, notice: bytes) -> None:
    """Tell the master."""
    try:
        os.write(fd, notice)
    except OSError:
        pass  # no master, no need


def receive(fd: int) -> Iterator[tuple[int, str, int]]:
    """Return what is there as number, kind and lost. A pipe tears no record of this size."""
    while True:
        try:
            data = os.read(fd, _BYTES * _BATCH)
        except BlockingIOError:
            return
        for at in range(0, len(data), _BYTES):
            notice = data[at : at + _BYTES]
            yield int(notice[:_KIND_AT]), chr(notice[_KIND_AT]), int(notice[_COUNT_AT:])
        if len(data) < _BYTES * _BATCH:
            return
