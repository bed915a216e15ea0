"""What handlers tell their master, in records of 20 bytes through one pipe.

SIGCHLD is ignored, so no exit status tells a handler that finished from one that was killed: the
one that finished has said so before it went.
"""

from __future__ import annotations

import os

IDLE = b"i"
"""The client is gone, and the handler waits for the next one."""

EXITING = b"g"
"""The client, if there was one, is gone, and the handler leaves."""

_BYTES = 20
_KIND_AT, _COUNT_AT = 12, 13
_BATCH = 1024
_MOST_LOST = 999_999


def make_notice(kind: bytes, number: int) -> bytes:
    """Write a notice of handler `number`, which has logged all that it had to say."""
    return b"%012d%b000000\n" % (number, kind)


def with_lost_count(notice: bytes, lost: int) -> bytes:
    """Return a notice that says how many events its handler could not log."""
    return notice[:_COUNT_AT] + b"%06d\n" % min(lost, _MOST_LOST)


def as_final(notice: bytes) -> bytes:
    """Return a notice that says that its handler leaves."""
    return notice[:_KIND_AT] + EXITING + notice[_COUNT_AT:]


def send_notice(fd: int, notice: bytes) -> None:
    """Tell the master."""
    try:
        os.write(fd, notice)
    except OSError:
        pass  # no master, no need


def read_notices(fd: int) -> list[tuple[int, bytes, int]]:
    """Return what is there as number, kind and lost. A pipe tears no record of this size."""
    received: list[tuple[int, bytes, int]] = []
    while True:
        try:
            data = os.read(fd, _BYTES * _BATCH)
        except BlockingIOError:
            return received
        for notice in data.splitlines():
            kind = notice[_KIND_AT:_COUNT_AT]
            received.append((int(notice[:_KIND_AT]), kind, int(notice[_COUNT_AT:])))
        if len(data) < _BYTES * _BATCH:
            return received
