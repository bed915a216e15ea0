"""Feeds events to the logger of a running tetrad, by the pipe that its handlers use."""

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

EVENTS_A_SESSION = 4
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.002
_CONTEXT = (
    b'"client":"203.0.113.7:38276","connection":"2f6b01c4-1a2b",'
    b'"service":"command","listener":"127.0.0.1:65000"'
)
_ENDED = '"reason":"quit","duration":0.000412,"bytes_in":8,"bytes_out":23,"commands":2'


def logged_per_second(master: int, logger: int, log: Path, sessions: int) -> float:
    """Write the events of so many sessions, each with one write, until all are in the log.

    The logger has one processor while that lasts. Raises MeasureError if anything is missing.
    """
    anywhere = os.sched_getaffinity(logger)
    os.sched_setaffinity(logger, {max(anywhere)})
    written = _session()
    with (
        open(log, "rb") as lines,
        open(f"/proc/{master}/fd/{EVENTS_WRITE}", "wb", buffering=0) as journal,
    ):
        lines.seek(0, os.SEEK_END)
        began = time.perf_counter()
        journal.writelines(itertools.repeat(written, sessions))
        missing = sessions * EVENTS_A_SESSION
        while missing > 0:
            new = lines.read()
            missing -= new.count(b"\n")
            if b"log.lost" in new or time.perf_counter() - began > PATIENCE_SECONDS:
                raise MeasureError(f"{missing} events are not in the log")
            time.sleep(_LOOK_SECONDS)
        seconds = time.perf_counter() - began
    os.sched_setaffinity(logger, anywhere)
    return sessions * EVENTS_A_SESSION / seconds


def _session() -> bytes:
    """Return what a handler writes about a session of two commands."""
    hears, tells = os.pipe()
    journal = LogWriter(tells, "info")
    journal.set_context(_CONTEXT)
    journal.event_json("info", CLIENT_CONNECTED)
    journal.event_json("info", CLIENT_COMMAND, '"command":"time"')
    journal.event_json("info", CLIENT_COMMAND, '"command":"quit"')
    journal.event_json("info", CLIENT_DISCONNECTED, _ENDED)
    journal.flush()
    try:
        return os.read(hears, 1 << 16)
    finally:
        os.close(hears)
        os.close(tells)
