"""Exit notices: handlers report to the master that a client is gone, in records of 20 bytes.

SIGCHLD is ignored, so the master sees no exit status. A handler that exits normally sends a notice
first; one that ends without a notice has crashed. All handlers write to one pipe. A session that
TLS, the subject of the client's certificate or an access list has ended is reported by a record of
its own before.
"""

from __future__ import annotations

import os

IDLE = b"i"
"""The client is gone, and the handler waits for the next one."""

EXITING = b"g"
"""The client, if there was one, is gone, and the handler exits."""

REJECTED = {"tls": b"t", "access": b"a"}
"""TLS, the subject of a certificate, or an access list that denies the client since a reload, has
ended the session; another notice follows."""

_BYTES = 20
_KIND_AT, _COUNT_AT = 12, 13
_BATCH = 1024
_MAX_LOST = 999_999


def make_notice(kind: bytes, number: int) -> bytes:
    """Return a notice of handler `number`, none of whose events were lost."""
    return b"%012d%b000000\n" % (number, kind)


def with_lost_count(notice: bytes, lost: int) -> bytes:
    """Return the notice with the number of events that the handler could not log."""
    return notice[:_COUNT_AT] + b"%06d\n" % min(lost, _MAX_LOST)


def as_exiting(notice: bytes) -> bytes:
    """Return the notice with the kind EXITING."""
    return notice[:_KIND_AT] + EXITING + notice[_COUNT_AT:]


def with_rejection(notice: bytes, reason: str) -> bytes:
    """Return the notice behind one of a rejection, if the session has ended for such a reason."""
    kind = REJECTED.get(reason)
    return notice if kind is None else notice[:_KIND_AT] + kind + b"000000\n" + notice


def send_notice(fd: int, notice: bytes) -> None:
    """Write a notice to the pipe."""
    try:
        os.write(fd, notice)
    except OSError:
        pass  # the master is gone


def read_notices(fd: int) -> list[tuple[int, bytes, int]]:
    """Return all notices in the pipe as handler number, kind and lost events.

    A pipe never splits a record of this size.
    """
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
