"""Notices: handlers report to the master that a client is gone, in records of 20 bytes.

SIGCHLD is ignored, so the master sees no exit status. A handler that exits normally sends a notice
first; one that ends without a notice has crashed. All handlers write to one pipe. A session that
TLS, the subject of the client's certificate or an access list has ended is reported by a record of
its own before, and so is a certificate that a client has, in a longer one.
The master accepts nothing but such records: a handler serves clients that may take it over.
"""

from __future__ import annotations

import os
from select import PIPE_BUF

CERTIFICATE = b"c"
"""The client has a verified certificate; the byte is followed by a description of it."""

IDLE = b"i"
"""The client is gone, and the handler waits for the next one."""

EXITING = b"g"
"""The client, if there was one, is gone, and the handler exits."""

REJECTED = {"tls": b"t", "access": b"a"}
"""TLS, the subject of a certificate, or an access list that denies the client since a reload, has
ended the session; another notice follows."""

INVALID = b"?"
"""What was read is not a notice. Not sent."""

_KINDS = {IDLE, EXITING, *REJECTED.values()}

_BYTES = 20
_KIND_AT, _COUNT_AT = 12, 13
_BATCH = 1024
_READS = 4
"""Reads that empty a pipe of the default capacity (64 KiB), even if it is written to meanwhile."""

_MAX_LOST = 999_999

_CERTIFICATE_END = b"."
"""No other notice ends like that, whatever the description is."""


def make_notice(kind: bytes, number: int) -> bytes:
    """Return a notice of handler `number`, none of whose events were lost."""
    return b"%012d%b000000\n" % (number, kind)


def with_lost_count(notice: bytes, lost: int) -> bytes:
    """Return the notice with the number of events that the handler could not log.

    What exceeds six digits is in notices of a handler 0, which does not exist, before it.
    """
    more = b""
    while lost > _MAX_LOST:
        more += b"%012d%b%06d\n" % (0, EXITING, _MAX_LOST)
        lost -= _MAX_LOST
    return more + notice[:_COUNT_AT] + b"%06d\n" % lost


def as_exiting(notice: bytes) -> bytes:
    """Return the notice with the kind EXITING."""
    return notice[:_KIND_AT] + EXITING + notice[_COUNT_AT:]


def with_rejection(notice: bytes, reason: str) -> bytes:
    """Return the notice behind one of a rejection, if the session has ended for such a reason."""
    kind = REJECTED.get(reason)
    if kind is None:
        return notice
    return notice[-_BYTES:][:_KIND_AT] + kind + b"000000\n" + notice


def send_certificate(fd: int, notice: bytes, description: bytes) -> None:
    """Report the certificate of the client of a handler, whose exit notice is given.

    One that is too long for one write is not reported: the master then knows none. Each is longer
    than other notices.
    """
    line = notice[:_KIND_AT] + CERTIFICATE + description + _CERTIFICATE_END + b"\n"
    if len(line) <= PIPE_BUF:
        send_notice(fd, line)


def send_notice(fd: int, notice: bytes) -> None:
    """Write a notice to the pipe."""
    try:
        os.write(fd, notice)
    except OSError:
        pass  # the master is gone


def read_notices(fd: int) -> list[tuple[int, bytes, int]]:
    """Return all notices in the pipe as handler number, kind and lost events.

    The kind CERTIFICATE is followed by the description. A pipe never splits a record when it is
    written. Each piece of anything else is a notice of the kind INVALID; the record that follows it
    is found all the same.
    """
    received: list[tuple[int, bytes, int]] = []
    rest = b""
    for turn in range(_READS + PIPE_BUF):
        if turn >= _READS and not rest:
            break
        size = _BYTES * _BATCH if turn < _READS else 1  # the end of a record that was cut
        try:
            data = os.read(fd, size)
        except BlockingIOError:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if len(line) >= _BYTES:
                if _is_certificate(line):
                    received.append((int(line[:_KIND_AT]), line[_KIND_AT:-1], 0))
                    continue
                received.append((0, INVALID, 0))
            received.append(_parse(line[1 - _BYTES :]))
        if len(data) < size:
            break
    if rest:
        received.append((0, INVALID, 0))
    return received


def _is_certificate(line: bytes) -> bool:
    number, kind = line[:_KIND_AT], line[_KIND_AT:_COUNT_AT]
    return number.isdigit() and kind == CERTIFICATE and line.endswith(_CERTIFICATE_END)


def _parse(notice: bytes) -> tuple[int, bytes, int]:
    """Parse a notice without its line ending."""
    number, kind, lost = notice[:_KIND_AT], notice[_KIND_AT:_COUNT_AT], notice[_COUNT_AT:]
    if len(notice) != _BYTES - 1 or kind not in _KINDS or not (number + lost).isdigit():
        return 0, INVALID, 0
    return int(number), kind, int(lost)
