"""The logger: reads events from the pipe, and is the only one that writes the log.

The only importer of structlog. It outlives its master until the pipe is empty: it is started deaf
to all signals but SIGKILL, and ends at the end of the pipe, or when another version is to take its
place.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import select
import struct
import sys
import termios
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from tetrad.ipc import log_protocol
from tetrad.ipc.log_counters import LogCounters
from tetrad.logger.file import LogFile
from tetrad.system.proctitle import ProcessTitle

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, WrappedLogger

PIPE = 3
TALLY = 4

RETRY_SECONDS = 1.0
"""How often a log that could not be written is tried again when nothing new comes."""

REST_SECONDS = 0.01
"""How long lines gather after a batch: woken for each of them, we were in the way of who serves."""

_READ_BYTES = 1 << 18
_MUCH = 1 / 8
"""What part of the pipe may be full when it is left to fill."""

_COUNT = struct.Struct("i")
_NANOSECONDS = 1_000_000_000

_SOME_TIME = b"0000-00-00T00:00:00.000000Z"
"""Stands for the time in a line that is rendered once, for whenever the same is said again."""


class Logger:
    """Turns what comes through the pipe into lines of the log, written with one write a batch."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self._lines: list[bytes] = []
        self._file = LogFile(orders["file"])
        self._counters = LogCounters(TALLY)
        self._lost = self._counters.take_unreported()
        self._is_leaving = False
        self._partial = b""
        self._speaker: dict[str, Any] | None = None
        self._configure(orders)
        self._file.open(repair=True)

    def run(self) -> None:
        """Read and write until every other end of the pipe is closed, or until told to leave."""
        while data := self._read():
            self.take(data)
            if self._is_leaving:
                self._finish()
                break
            _rest()
        self._write()
        if self._is_leaving:
            self._counters.record_exit(os.getpid(), self._lost)

    def _finish(self) -> None:
        """Read on to where a write ends, so that the next logger begins where one begins.

        Writes go into a pipe whole, so how much is in it now is a number of whole ones.
        """
        left = _waiting_bytes()
        while left > 0:
            data = os.read(PIPE, left)
            left -= len(data)
            self.take(data)

    def _read(self) -> bytes:
        """Wait for more; meanwhile, try now and then to report what was lost."""
        poll = select.poll()
        poll.register(PIPE, select.POLLIN)
        while not poll.poll(RETRY_SECONDS * 1000 if self._lost else None):
            self._write()
        return os.read(PIPE, _READ_BYTES)

    def take(self, data: bytes) -> None:
        """Write what has come, but for a last line that has not come whole."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            try:
                self._heed(line.decode())
            except ValueError:  # half of it went down with another logger
                self._lost += self._speaker is not None
        self._write()

    def _heed(self, line: str) -> None:
        """Log an event, obey an order, or take note of who speaks. Raises ValueError."""
        if line.startswith(log_protocol.CONTEXT_MARK):
            self._speaker = _decode(line.removeprefix(log_protocol.CONTEXT_MARK))
            self._rendered.clear()
            return
        moment, what = line.split(" ", 1)
        if what in self._rendered:  # as when a client sends the same command many times at once
            self._gather(int(moment), self._rendered[what])
            return
        level, event, text = what.split(" ", 2)
        fields = _decode(text)
        if level == log_protocol.LOGGER_ORDER:
            self._obey(event, fields)
        elif event == log_protocol.LOG_LOST and fields["count"]:
            self._lost += fields["count"]  # one report for all that was lost, wherever it was
        elif self._speaker is not None:
            if level == "info" and log_protocol.HEALTH_CHECK in self._speaker:
                level = "debug"
            self._rendered[what] = self._log(int(moment), level, event, self._speaker | fields)

    def _log(self, moment: int, level: str, event: str, fields: dict[str, Any]) -> bytes:
        """Log an event; return its line for whenever it comes again, empty if nobody wants it."""
        rendered: str | bytes = self._methods[level](event, **fields) or b""
        if isinstance(rendered, str):
            rendered = rendered.encode("ascii", "backslashreplace")
        self._gather(moment, rendered)
        return rendered

    def _gather(self, moment: int, rendered: bytes) -> None:
        """Have a line written with the time in it."""
        if rendered:
            seconds, nanoseconds = divmod(moment, _NANOSECONDS)
            stamp = b"%b.%06dZ" % (_second(seconds), nanoseconds // 1000)
            self._lines.append(rendered.replace(_SOME_TIME, stamp, 1))

    def _obey(self, order: str, fields: dict[str, Any]) -> None:
        self._write()
        if order == log_protocol.LOGGER_CONFIGURE:
            self._configure(fields)
            self._file.move(fields["file"])
        elif order == log_protocol.LOGGER_REOPEN and self._file.open():
            self._say("info", log_protocol.LOG_REOPENED)
        elif order == log_protocol.LOGGER_EXIT and fields["pid"] == os.getpid():
            self._is_leaving = True

    def _configure(self, orders: dict[str, Any]) -> None:
        self._rendered: dict[str, bytes] = {}
        logger = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[_head, _renderer(orders["format"])],
            wrapper_class=structlog.make_filtering_bound_logger(
                log_protocol.LEVELS[orders["level"]]
            ),
            cache_logger_on_first_use=True,
        )
        bound = logger.bind()
        self._methods = {level: getattr(bound, level) for level in log_protocol.LEVELS}

    def _write(self) -> None:
        """Write what was gathered; what cannot be is counted, and reported once it can."""
        lines = self._take()
        if not lines and not self._lost:
            return
        if self._file.was_moved() and self._file.open():
            self._say("info", log_protocol.LOG_REOPENED)
        if self._lost and self._say("error", log_protocol.LOG_LOST, count=self._lost):
            self._lost = 0
        written = self._file.write(lines)
        self._lost += len(lines) - written
        self._counters.add(written, len(lines) - written)

    def _say(self, level: str, event: str, **fields: object) -> bool:
        """Write a line of the logger's own, at once; True if it is written."""
        self._log(time.time_ns(), level, event, {"pid": os.getpid(), **fields})
        lines = self._take()
        return self._file.write(lines) == len(lines)

    def _take(self) -> list[bytes]:
        """Return the lines that were gathered, once."""
        lines, self._lines = self._lines, []
        return lines


def _rest() -> None:
    """Let lines gather, unless the pipe fills: the first after a pause is written at once."""
    if _waiting_bytes() < fcntl.fcntl(PIPE, fcntl.F_GETPIPE_SZ) * _MUCH:
        # For a span; time.sleep waits for a moment, which is none where a clock is made up.
        select.poll().poll(REST_SECONDS * 1000)


def _waiting_bytes() -> int:
    """Return how much is in the pipe."""
    (count,) = _COUNT.unpack(fcntl.ioctl(PIPE, termios.FIONREAD, bytes(_COUNT.size)))
    return int(count)


def main() -> None:
    """Run the logger; its one argument says how and where to write, as JSON."""
    orders = json.loads(sys.argv[1])
    ProcessTitle().show(b"logger")
    Logger(orders).run()


def _head(_logger: WrappedLogger, level: str, fields: EventDict) -> EventDict:
    """Put time, level and event first, in that order."""
    stamp = _SOME_TIME.decode()
    return {"timestamp": stamp, "level": level, "event": fields.pop("event"), **fields}


@functools.lru_cache(maxsize=8)
def _second(seconds: int) -> bytes:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}".encode()


def _renderer(style: str) -> Callable[[WrappedLogger, str, EventDict], str | bytes]:
    if style == "json":
        return _json
    if style == "logfmt":
        return structlog.processors.LogfmtRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)


_decode: Callable[[str | bytes], dict[str, Any]] = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def _json(_logger: WrappedLogger, _level: str, fields: EventDict) -> bytes:
    line = _encode(fields)
    return line if line.isascii() else json.dumps(fields).encode()
