"""The logger process: reads events from the event pipe and writes the lines of the log.

It is the only process that imports structlog, and the only one that writes the log. It never
serves a client. It ignores all signals except SIGKILL, so that it outlives the master until the
pipe is empty, and exits at the end of the pipe or by the order of a new version.
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
from tetrad.logger.file import STANDARD_ERROR, LogFile
from tetrad.system import journal
from tetrad.system.proctitle import ProcessTitle
from tetrad.system.text import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor, WrappedLogger

PIPE = 3
COUNTERS = 4

RETRY_SECONDS = 1.0
"""How often losses are reported again while the log cannot be written and no event arrives."""

BATCH_SECONDS = 0.01
"""The pause after a batch, in which events collect. Waking for each event would slow handlers."""

_READ_BYTES = 1 << 18
_MAX_FILL = 1 / 8
"""The part of the pipe's capacity above which the logger reads again without a pause."""

_COUNT = struct.Struct("i")
_NANOSECONDS = 1_000_000_000

_TIME_PLACEHOLDER = b"0000-00-00T00:00:00.000000Z"
"""The time in a rendered line, which is reused when the same event occurs again."""


class Logger:
    """Turns the data of the event pipe into lines of the log, with one write for each batch."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._lines: list[bytes] = []
        self._suppressed: dict[int, int] = {}  # in these lines: the events that they stand for
        self._file = LogFile(config["file"])
        self._counters = LogCounters(COUNTERS)
        self._lost = self._counters.take_unreported()
        self._is_exiting = False
        self._partial = b""
        self._context: dict[str, Any] | None = None
        self._configure(config)
        self._file.open(repair=True)
        self._counters.record_start(os.getpid())

    def run(self) -> None:
        """Read and write until all writers have closed the pipe, or the order to exit arrives."""
        while data := self._read():
            self.feed(data)
            if self._is_exiting:
                self._read_to_end_of_write()
                break
            _pause()
        self._write()
        if self._is_exiting:
            self._counters.record_exit(os.getpid(), self._lost)

    def _read_to_end_of_write(self) -> None:
        """Read what is in the pipe now, so that the next logger begins where a write begins.

        The kernel adds each write to the pipe as a whole, so the pipe now ends where a write ends.
        """
        remaining = _pipe_bytes()
        while remaining > 0:
            data = os.read(PIPE, remaining)
            remaining -= len(data)
            self.feed(data)

    def _read(self) -> bytes:
        """Wait for data and return it; meanwhile try to report losses every RETRY_SECONDS."""
        poll = select.poll()
        poll.register(PIPE, select.POLLIN)
        while not poll.poll(RETRY_SECONDS * 1000 if self._lost else None):
            self._write()
        return os.read(PIPE, _READ_BYTES)

    def feed(self, data: bytes) -> None:
        """Handle the complete lines in the data, and keep a partial line for the next call."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            try:
                self._handle_line(line.decode())
            except ValueError:  # its beginning was read by a logger that was killed
                self._lost += self._context is not None
        self._write()

    def _handle_line(self, line: str) -> None:
        """Handle a context line, an event or an order. Raises ValueError if it is malformed."""
        if line.startswith(log_protocol.CONTEXT_MARK):
            self._context = _decode(line.removeprefix(log_protocol.CONTEXT_MARK))
            self._rendered.clear()
            return
        moment, what = line.split(" ", 1)
        if what in self._rendered:  # for example a client that pipelines the same command
            self._add_line(int(moment), self._rendered[what])
            return
        level, event, text = what.split(" ", 2)
        fields = _decode(text)
        if level == log_protocol.LOGGER_ORDER:
            self._handle_order(event, fields)
        elif event == log_protocol.LOG_LOST and fields["count"]:
            self._lost += fields["count"]  # one report for the losses of all processes
        elif self._context is not None:
            if level == "info" and log_protocol.HEALTH_CHECK in self._context:
                level = "debug"
            rendered = self._log(int(moment), level, event, self._context | fields)
            if log_protocol.SUPPRESSED not in fields:
                self._rendered[what] = rendered
            elif rendered:
                self._suppressed[len(self._lines) - 1] = fields[log_protocol.SUPPRESSED]

    def _log(self, moment: int, level: str, event: str, fields: dict[str, Any]) -> bytes:
        """Log an event; return its line for reuse, empty if the level is filtered out."""
        rendered: str | bytes = self._methods[level](event, **fields) or b""
        if isinstance(rendered, str):
            rendered = rendered.encode("ascii", "backslashreplace")
        if rendered and self._is_journal:
            rendered = journal.PRIORITIES[level] + rendered
        self._add_line(moment, rendered)
        return rendered

    def _add_line(self, moment: int, rendered: bytes) -> None:
        """Add a line to the batch, with its time in nanoseconds in place of the placeholder."""
        if rendered and self._is_journal:
            self._lines.append(rendered)
        elif rendered:
            seconds, nanoseconds = divmod(moment, _NANOSECONDS)
            stamp = b"%b.%06dZ" % (_format_second(seconds), nanoseconds // 1000)
            self._lines.append(rendered.replace(_TIME_PLACEHOLDER, stamp, 1))

    def _handle_order(self, order: str, fields: dict[str, Any]) -> None:
        self._write()
        if order == log_protocol.LOGGER_CONFIGURE:
            self._configure(fields)
            self._file.move(fields["file"])
        elif order == log_protocol.LOGGER_REOPEN and self._file.open():
            self._write_own_event("info", log_protocol.LOG_REOPENED)
        elif order == log_protocol.LOGGER_EXIT and fields["pid"] == os.getpid():
            self._is_exiting = True

    def _configure(self, config: dict[str, Any]) -> None:
        self._rendered: dict[str, bytes] = {}
        self._is_journal = config["file"] is None and journal.is_journal(STANDARD_ERROR)
        logger = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[
                _order_fields if self._is_journal else _order_fields_with_time,
                *_renderers(config["format"]),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(
                log_protocol.LEVELS[config["level"]]
            ),
            cache_logger_on_first_use=True,
        )
        bound = logger.bind()
        self._methods = {level: getattr(bound, level) for level in log_protocol.LEVELS}

    def _write(self) -> None:
        """Write the batch, after a report of earlier losses; count the events that fail."""
        lines = self._take_lines()
        suppressed, self._suppressed = self._suppressed, {}
        if not lines and not self._lost:
            return
        if self._file.was_moved() and self._file.open():
            self._write_own_event("info", log_protocol.LOG_REOPENED)
        if self._lost and self._write_own_event("error", log_protocol.LOG_LOST, count=self._lost):
            self._lost = 0
        written = self._file.write(lines)
        lost = len(lines) - written
        lost += sum(count - 1 for index, count in suppressed.items() if index >= written)
        self._lost += lost
        self._counters.add(written, lost)

    def _write_own_event(self, level: str, event: str, **fields: object) -> bool:
        """Write an event of the logger itself at once; return whether it was written."""
        self._log(time.time_ns(), level, event, {"pid": os.getpid(), **fields})
        lines = self._take_lines()
        return self._file.write(lines) == len(lines)

    def _take_lines(self) -> list[bytes]:
        """Return the lines of the batch, and begin a new one."""
        lines, self._lines = self._lines, []
        return lines


def _pause() -> None:
    """Let events collect in the pipe, unless it fills.

    Only a batch is followed by a pause: the first event after an idle time is written at once.
    """
    if _pipe_bytes() < fcntl.fcntl(PIPE, fcntl.F_GETPIPE_SZ) * _MAX_FILL:
        # poll(2) waits for a duration. time.sleep waits until a moment of the clock, and returns at
        # once where a tool fakes the clock.
        select.poll().poll(BATCH_SECONDS * 1000)


def _pipe_bytes() -> int:
    """Return how many bytes are in the pipe."""
    (count,) = _COUNT.unpack(fcntl.ioctl(PIPE, termios.FIONREAD, bytes(_COUNT.size)))
    return int(count)


def main() -> None:
    """Run the logger. Its argument is the `LogConfig` in JSON."""
    config = json.loads(sys.argv[1])
    ProcessTitle().show(b"logger")
    Logger(config).run()


def _order_fields(_logger: WrappedLogger, level: str, fields: EventDict) -> EventDict:
    """Put level and event first, in that order."""
    return {"level": level, "event": fields.pop("event"), **fields}


def _order_fields_with_time(logger: WrappedLogger, level: str, fields: EventDict) -> EventDict:
    """Put the time before level and event."""
    stamp = _TIME_PLACEHOLDER.decode()
    return {"timestamp": stamp, **_order_fields(logger, level, fields)}


@functools.lru_cache(maxsize=8)
def _format_second(seconds: int) -> bytes:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}".encode()


def _renderers(style: str) -> list[Processor]:
    if style == "json":
        return [_render_json]
    if style == "logfmt":
        return [_escape, structlog.processors.LogfmtRenderer()]
    return [_escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)]


def _escape(_logger: WrappedLogger, _level: str, fields: EventDict) -> EventDict:
    """Escape what could control a terminal or end a line; the renderers leave it as it is."""
    return {
        escape_unprintable(key): escape_unprintable(value) if isinstance(value, str) else value
        for key, value in fields.items()
    }


_decode: Callable[[str | bytes], dict[str, Any]] = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def _render_json(_logger: WrappedLogger, _level: str, fields: EventDict) -> bytes:
    line = _encode(fields)
    return line if line.isascii() else json.dumps(fields).encode()
