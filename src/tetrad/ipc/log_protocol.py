r"""The vocabulary of the log, and how an event is put into the pipe that leads to the logger.

A write is a line of JSON that says who speaks, and a line for each thing it has to say: the time in
nanoseconds, the level, the event and its fields, or an order to the logger. It has at most PIPE_BUF
bytes, so nothing tears and nothing is put together again. What finds no room is dropped and
counted: what was sent is what was written and what `log.lost` reports.

    \x1e{"pid":4711,"client":"192.0.2.7:38276"}
    1795328416880292123 info client.command {"command":"time"}

The record separator at the head stands nowhere else, so a logger that takes over in the middle of
a write, because another was killed, finds where the next one begins.
"""

from __future__ import annotations

import os
import select
import time

from tetrad.ipc.fds import EVENTS_WRITE
from tetrad.system.errors import call_path
from tetrad.system.json_lite import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.saved_state import LogWriterState

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

SERVER_STARTED = "server.started"
SERVER_LISTENING = "server.listening"
SERVER_STOPPING = "server.stopping"
SERVER_STOPPED = "server.stopped"
SERVER_RELOADED = "server.reloaded"
SERVER_RELOAD_FAILED = "server.reload_failed"
SERVER_UPGRADED = "server.upgraded"
SERVER_UPGRADE_FAILED = "server.upgrade_failed"
SERVER_OVERLOADED = "server.overloaded"
SERVER_FAILED = "server.failed"
CLIENT_CONNECTED = "client.connected"
CLIENT_COMMAND = "client.command"
CLIENT_INVALID = "client.invalid"
CLIENT_DISCONNECTED = "client.disconnected"
CLIENT_REFUSED = "client.refused"
HANDLER_LOST = "handler.lost"
HANDLER_FAILED = "handler.failed"
CERTIFICATE_EXPIRES = "certificate.expires"
LOG_REOPENED = "log.reopened"
LOG_LOST = "log.lost"

CONTEXT_MARK = "\x1e"
"""Stands at the head of a write."""

HEALTH_CHECK = "check"
"""A field of who speaks of a balancer's look whether we live: what is usual about that is worth a
line at level debug only."""

LOGGER_ORDER = "order"
"""Stands in the place of the level of what is an order to the logger, which keeps its place."""

LOGGER_REOPEN = "logger.reopen"
LOGGER_CONFIGURE = "logger.configure"
LOGGER_EXIT = "logger.leave"

PIPE_TIMEOUT_SECONDS = 0.25
"""How long a handler waits for room in the pipe before it drops what it has to say."""

_ENCODING = ("utf-8", "backslashreplace")
_LONGEST_TEXT = 400
_MOST_ITEMS = 6


class LogWriter:
    """One process's end of the pipe. It gathers events, and `flush` sends them.

    `patience` is how many seconds a flush waits for room. The master has none; it is the one that
    reports what was lost, by handlers, too, who tell it (`tetrad.ipc.exit_notices`).
    """

    __slots__ = (
        "_blocked",
        "_context",
        "_count",
        "_fd",
        "_head",
        "_size",
        "_threshold",
        "lost",
        "lost_total",
        "pending",
        "reliable",
        "timeout",
    )

    def __init__(self, fd: int, level: str, patience: float = 0.0) -> None:
        self._fd = fd
        self._threshold = LEVELS[level]
        self.pending: list[bytes] = []
        self._count = 0
        self.reliable: dict[str, bytes] = {}
        self._blocked = False
        self.timeout = patience
        self.lost = 0
        self.lost_total = 0
        self.set_context(b"")

    @property
    def fd(self) -> int:
        """The descriptor of the pipe."""
        return self._fd

    @property
    def level(self) -> int:
        """The least level that is sent."""
        return self._threshold

    def count_lost(self, count: int) -> None:
        """Take note of events that were lost, and are to be reported."""
        self.lost += count
        self.lost_total += count

    def take_lost(self) -> int:
        """Return how many were lost and not reported, for somebody else to report."""
        lost, self.lost = self.lost, 0
        return lost

    def set_level(self, level: str) -> None:
        """Send events of this level and above from now on."""
        self._threshold = LEVELS[level]

    def set_context(self, context: bytes) -> None:
        """Say what every event of this process has from now on, as JSON, beside its pid."""
        self.flush()
        self._context = context
        more = b"," + context if context else b""
        self._head = b'%b{"pid":%d%b}\n' % (CONTEXT_MARK.encode(), os.getpid(), more)
        self._size = len(self._head)

    def add_context(self, more: bytes) -> None:
        """Say what else every event has from now on."""
        self.set_context(self._context + b"," + more)

    def event(self, level: str, event: str, /, **fields: object) -> None:
        """Gather one event, shortened if it would not fit a write."""
        room = select.PIPE_BUF - len(self._head) - len(_line(level, event, ""))
        text = members(fields)
        if _size(text) > room:
            text = ""
            for name, value in fields.items():
                longer = text + "," * bool(text) + members({name: shortened(value)})
                text = longer if _size(longer) <= room else text
        self.event_json(level, event, text)

    def event_json(self, level: str, event: str, fields: str = "") -> None:
        """Gather one event; `fields` are JSON, and left out if they would not fit a write."""
        if LEVELS[level] >= self._threshold:
            line = _line(level, event, fields)
            if len(self._head) + len(line) > select.PIPE_BUF:
                line = _line(level, event, "")
            self._append(line, 1)

    def enqueue_reliable(self, level: str, event: str, /, **fields: object) -> None:
        """Gather what must not be lost: an order, or what cannot be counted. Twice is once.

        It keeps its place, and if there is no room, every flush tries again.
        """
        self.flush()
        self.reliable[event] = _line(level, event, members(fields))
        self.flush()

    @property
    def has_backlog(self) -> bool:
        """Whether something waits for room in the pipe."""
        return bool(self.lost or self.reliable)

    def save_state(self) -> LogWriterState:
        """Return what the journal of the next version has to go on with."""
        # Orders are for a logger that is replaced; what cannot be counted has to be told.
        due = self.reliable.get(LOG_LOST)
        return {"lost": self.lost, "lost_total": self.lost_total, "report": due}

    def restore_state(self, left: LogWriterState) -> None:
        """Go on from what the version before has left."""
        self.lost, self.lost_total = left["lost"], left["lost_total"]
        if left["report"] is not None:
            self.reliable[LOG_LOST] = left["report"]

    def append(self, lines: bytes, count: int) -> None:
        """Gather events that were written down elsewhere, in the form that is at the head."""
        if lines:
            self._append(lines, count)

    def write_batch(self, whole: bytes, count: int) -> None:
        """Send a write that was put together elsewhere, with `count` events in it."""
        self._blocked = not self._write(whole)
        if self._blocked:
            self.count_lost(count)

    def _append(self, lines: bytes, count: int) -> None:
        if self._size + len(lines) > select.PIPE_BUF:
            self.flush()
        self.pending.append(lines)
        self._count += count
        self._size += len(lines)

    def flush(self) -> None:
        """Send what was gathered, behind what is due and a report of what was lost before it."""
        for event, line in list(self.reliable.items()):
            if self._write(self._head + line):
                del self.reliable[event]
        if self.lost and not self.timeout:
            self._report_lost()
        if not self.pending:
            return
        if self._write(self._head + b"".join(self.pending)):
            self._blocked = False
        else:
            self.count_lost(self._count)
            self._blocked = True
        self.pending.clear()
        self._count = 0
        self._size = len(self._head)

    def _report_lost(self) -> None:
        report = _line("error", LOG_LOST, f'"count":{self.lost}')
        if self._write(self._head + report):
            self.lost = 0

    def _write(self, data: bytes) -> bool:
        """Write all or nothing. Only the first of several failures in a row waits for room."""
        deadline = time.monotonic() + (0.0 if self._blocked else self.timeout)
        while True:
            try:
                os.write(self._fd, data)
            except BlockingIOError:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(remaining * 1000)
            except OSError:
                return False
            else:
                return True


def _line(level: str, event: str, fields: str) -> bytes:
    return f"{time.time_ns()} {level} {event} {{{fields}}}\n".encode(*_ENCODING)


def shortened(value: object) -> object:
    """Return a value without what would not fit a line; `tetrad check` tells the whole of it."""
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[:_LONGEST_TEXT] + "..."
    if isinstance(value, list):
        more = [f"and {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else []
        return [shortened(item) for item in value[:_MOST_ITEMS]] + more
    if isinstance(value, dict):
        rest = {"...": f"and {len(value) - _MOST_ITEMS} more"} if len(value) > _MOST_ITEMS else {}
        return {key: shortened(value[key]) for key in list(value)[:_MOST_ITEMS]} | rest
    return value


def _size(text: str) -> int:
    """Return how many bytes a text has in the pipe."""
    return len(text.encode(*_ENCODING))


def log_handler_failure(error: BaseException) -> None:
    """Log the exception that ends a child of the master; called in that child."""
    log = LogWriter(EVENTS_WRITE, "error", PIPE_TIMEOUT_SECONDS)
    log.event("error", HANDLER_FAILED, error=repr(error), place=call_path(error))
    log.flush()
