"""Writes events into the pipe of a running tetrad's logger, as its handlers do."""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

from benchmarks.processes import MeasureError
from tetrad.ipc.fds import EVENTS_WRITE
from tetrad.ipc.log_protocol import CLIENT_COMMAND, CLIENT_CONNECTED, CLIENT_DISCONNECTED, LogWriter

if TYPE_CHECKING:
    from pathlib import Path

EVENTS_PER_SESSION = 4
TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.002
_CONTEXT = (
    b'"client":"203.0.113.7:38276","connection":"2f6b01c4-1a2b",'
    b'"service":"command","listener":"127.0.0.1:65000"'
)
_ENDED = '"reason":"quit","duration":0.000412,"bytes_in":8,"bytes_out":23,"commands":2'


def logged_per_second(master: int, logger: int, log: Path, sessions: int) -> float:
    """Write the events of so many sessions, one write each, and wait until all are in the log.

    Meanwhile the logger has one processor. Return events per second. Raises MeasureError if an
    event is missing.
    """
    previous_affinity = os.sched_getaffinity(logger)
    os.sched_setaffinity(logger, {max(previous_affinity)})
    written = _session_events()
    with (
        open(log, "rb") as lines,
        open(f"/proc/{master}/fd/{EVENTS_WRITE}", "wb", buffering=0) as events,
    ):
        lines.seek(0, os.SEEK_END)
        began = time.perf_counter()
        events.writelines(itertools.repeat(written, sessions))
        missing = sessions * EVENTS_PER_SESSION
        while missing > 0:
            new = lines.read()
            missing -= new.count(b"\n")
            if b"log.lost" in new or time.perf_counter() - began > TIMEOUT_SECONDS:
                raise MeasureError(f"{missing} events are not in the log")
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - began
    os.sched_setaffinity(logger, previous_affinity)
    return sessions * EVENTS_PER_SESSION / seconds


def _session_events() -> bytes:
    """Return what a handler writes about a session with two commands."""
    reads, writes = os.pipe()
    events = LogWriter(writes, "info")
    events.set_context(_CONTEXT)
    events.event_json("info", CLIENT_CONNECTED)
    events.event_json("info", CLIENT_COMMAND, '"command":"time"')
    events.event_json("info", CLIENT_COMMAND, '"command":"quit"')
    events.event_json("info", CLIENT_DISCONNECTED, _ENDED)
    events.flush()
    try:
        return os.read(reads, 1 << 16)
    finally:
        os.close(reads)
        os.close(writes)
