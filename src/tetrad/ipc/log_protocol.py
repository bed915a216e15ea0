r"""The names of events, and the format of the event pipe, which leads to the logger.

One write to the pipe is a context line, and a line for each event or order. The context line is a
JSON object with the fields that all events of the write have. An event line has the time in
nanoseconds, the level, the name of the event, and its own fields. A write has at most PIPE_BUF
bytes, so the kernel neither splits nor interleaves it. If the pipe is full, the events of the write
are dropped and counted: sent = written + reported by `log.lost`. Answered commands may fill a part
of the pipe only, so that a flood of them leaves room for everything else.

    \x1e{"pid":4711,"client":"192.0.2.7:38276"}
    1795328416880292123 info client.command {"command":"time"}

The record separator at the beginning occurs nowhere else. A logger that replaces one that was
killed in the middle of a write finds the beginning of the next write by it.
"""

from __future__ import annotations

import os
import select
import sys
import time
from fcntl import F_GETPIPE_SZ, fcntl, ioctl

from tetrad.ipc.fds import EVENTS_WRITE
from tetrad.system.json_lite import members
from tetrad.system.text import call_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.saved_state import LogWriterState

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

SERVER_STARTED = "server.started"
SERVER_LISTENING = "server.listening"
SERVER_UNCONFINED = "server.unconfined"
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
HANDLER_NOTICE_INVALID = "handler.notice_invalid"
CERTIFICATE_EXPIRES = "certificate.expires"
LOG_REOPENED = "log.reopened"
LOG_LOST = "log.lost"

CONTEXT_MARK = "\x1e"
"""The record separator, the first byte of each write."""

HEALTH_CHECK = "check"
"""A field of the context of a balancer's health check. Its info events get the level debug."""

_HEALTH_CHECK_MEMBER = f',"{HEALTH_CHECK}":true'.encode()
"""The same field as the context has it; no quotation mark in a value is unescaped."""

SUPPRESSED = "suppressed"
"""The field of an event that stands for so many events of the same kind."""

LOGGER_ORDER = "order"
"""In place of the level: the line is an order to the logger. Orders keep their place in the log."""

LOGGER_REOPEN = "logger.reopen"
LOGGER_CONFIGURE = "logger.configure"
LOGGER_EXIT = "logger.leave"

PIPE_TIMEOUT_SECONDS = 0.25
"""How long a handler waits for room in the pipe before it drops events."""

COMMANDS_SHARE = 1 / 4
"""The part of the pipe's capacity up to which answered commands may fill it.

Writes of more than half a page take a page each, so twice as much of the pipe may be in use.
"""

_RETRY_SECONDS = 0.005
"""How often a handler looks whether there is room for commands: poll(2) does not tell."""

_FIONREAD = 0x541B
"""Asks how many bytes are in the pipe. The module termios, which has it, is large.

The number is another one on Alpha, MIPS, POWER and SPARC: there commands may fill the pipe.
"""

_ENCODING = ("utf-8", "backslashreplace")
_MAX_TEXT_CHARS = 400
_MAX_ITEMS = 6


class LogWriter:
    """The writing end of the event pipe in one process. Events are collected until `flush`.

    `timeout` is how many seconds a flush waits for room. The master does not wait (0). It also
    reports all losses: handlers send it their counts (`tetrad.ipc.exit_notices`).

    `level` is the lowest level that is sent, as a number of LEVELS. `pending` are the lines
    collected for the next write, `reliable` the lines that are retried until they are written. If
    the pipe has no room for answered commands, they are left out of the next write.
    `lost` counts the losses that are not reported yet, `lost_total` all.
    """

    __slots__ = (
        "_blocked",
        "_commands_blocked",
        "_context",
        "_context_line",
        "_count",
        "_other_count",
        "_other_lines",
        "_size",
        "fd",
        "level",
        "lost",
        "lost_total",
        "pending",
        "reliable",
        "timeout",
    )

    def __init__(self, fd: int, level: str, timeout: float = 0.0) -> None:
        self.fd = fd
        self.level = LEVELS[level]
        self.pending: list[bytes] = []
        self._count = 0
        self._other_lines: list[bytes] = []
        self._other_count = 0
        self.reliable: dict[str, bytes] = {}
        self._blocked = self._commands_blocked = False
        self.timeout = timeout
        self.lost = 0
        self.lost_total = 0
        self.set_context(b"")

    def count_lost(self, count: int) -> None:
        """Count events that were lost and are to be reported."""
        self.lost += count
        self.lost_total += count

    def take_lost(self) -> int:
        """Return how many lost events are not reported yet; another process reports them."""
        lost, self.lost = self.lost, 0
        return lost

    def set_level(self, level: str) -> None:
        """Send only events of this level and above."""
        self.level = LEVELS[level]

    def set_context(self, context: bytes) -> None:
        """Set the fields that all further events have beside the pid, as members of JSON."""
        self.flush()
        self._context = context
        more = b"," + context if context else b""
        self._context_line = b'%b{"pid":%d%b}\n' % (CONTEXT_MARK.encode(), os.getpid(), more)
        self._size = len(self._context_line)

    def stop_demoting(self, since: int) -> None:
        """Have the lines of a health check the levels of others from now on.

        `since` is the time of its beginning in nanoseconds, which is logged if it was not.
        """
        context = self._context.replace(_HEALTH_CHECK_MEMBER, b"")
        if context != self._context:
            self.set_context(context)
            if self.level == LEVELS["info"]:
                self.append(f"{since} info {CLIENT_CONNECTED} {{}}\n".encode(), 1)

    def add_context(self, more: bytes) -> None:
        """Add fields to the context."""
        self.set_context(self._context + b"," + more)

    def event(self, level: str, event: str, /, **fields: object) -> None:
        """Add an event; shorten its fields, or leave some out, if it would not fit in a write.

        One with the field `suppressed` is about this many events, and counts as many if it is lost.
        """
        room = select.PIPE_BUF - len(self._context_line) - len(_line(level, event, ""))
        text = members(fields)
        if _encoded_size(text) > room:
            text = ""
            for name, value in fields.items():
                longer = text + "," * bool(text) + members({name: shorten(value)})
                text = longer if _encoded_size(longer) <= room else text
        count = fields.get(SUPPRESSED, 1)
        if LEVELS[level] >= self.level:
            self.append(_line(level, event, text), count if type(count) is int else 1)

    def event_json(self, level: str, event: str, *fields: str) -> None:
        """Add an event for each of `fields`, JSON members, all with the time of now.

        Fields that would not fit in a write are left out.
        """
        if LEVELS[level] < self.level:
            return
        is_command = event == CLIENT_COMMAND and level == "info"
        head = f"{time.time_ns()} {level} {event} {{"
        most = select.PIPE_BUF - len(self._context_line)
        for one in fields:
            line = f"{head}{one}}}\n".encode(*_ENCODING)
            if len(line) > most:
                line = f"{head}}}\n".encode()
            self.append(line, 1, is_command=is_command)

    def enqueue_reliable(self, level: str, event: str, /, **fields: object) -> None:
        """Write an order, or a loss of unknown size, which must not be lost itself.

        It follows the events before it. If the pipe is full, each flush tries again; a second call
        for the same event replaces the line that waits.
        """
        self.flush()
        self.reliable[event] = _line(level, event, members(fields))
        self.flush()

    @property
    def has_backlog(self) -> bool:
        """Whether lines or a report of losses wait for room in the pipe."""
        return bool(self.lost or self.reliable)

    def save_state(self) -> LogWriterState:
        """Return what the next version continues from."""
        # Orders are for a logger that the next version replaces. A report of losses is still due.
        due = self.reliable.get(LOG_LOST)
        return {"lost": self.lost, "lost_total": self.lost_total, "report": due}

    def restore_state(self, state: LogWriterState) -> None:
        """Continue from the state of the previous version."""
        self.lost, self.lost_total = state["lost"], state["lost_total"]
        if state["report"] is not None:
            self.reliable[LOG_LOST] = state["report"]

    def append(self, lines: bytes, count: int, *, is_command: bool = False) -> None:
        """Add `count` events that the caller has formatted as event lines.

        `is_command`: they are answered commands, for which the pipe has less room.
        """
        if not lines:
            return
        if self._size + len(lines) > select.PIPE_BUF:
            self.flush()
        self.pending.append(lines)
        self._count += count
        if not is_command:
            self._other_lines.append(lines)
            self._other_count += count
        self._size += len(lines)

    def write_batch(self, data: bytes, count: int) -> None:
        """Write at once `count` events that the caller has formatted with their context line."""
        self._blocked = not self._write(data)
        if self._blocked:
            self.count_lost(count)

    def flush(self) -> None:
        """Write the lines that wait, then a report of losses, then the events collected."""
        for event, line in list(self.reliable.items()):
            if self._write(self._context_line + line):
                del self.reliable[event]
        if self.lost and not self.timeout:
            self._report_lost()
        if not self.pending:
            return
        lines, count = self.pending, self._count
        if count > self._other_count and not self._has_room_for_commands():
            lines, count = self._other_lines, self._other_count
            self.count_lost(self._count - count)
        if lines:
            self.write_batch(self._context_line + b"".join(lines), count)
        self.pending.clear()
        self._count = 0
        self._other_lines.clear()
        self._other_count = 0
        self._size = len(self._context_line)

    def _has_room_for_commands(self) -> bool:
        """Wait for room for commands. Of several failures in a row, only the first waits."""
        deadline = time.monotonic() + (0.0 if self._commands_blocked else self.timeout)
        while is_fuller(self.fd, COMMANDS_SHARE):
            remaining = deadline - time.monotonic()
            self._commands_blocked = remaining <= 0
            if self._commands_blocked:
                return False
            select.poll().poll(min(remaining, _RETRY_SECONDS) * 1000)
        self._commands_blocked = False
        return True

    def _report_lost(self) -> None:
        report = _line("error", LOG_LOST, f'"count":{self.lost}')
        if self._write(self._context_line + report):
            self.lost = 0

    def _write(self, data: bytes) -> bool:
        """Write all or nothing. Of several failures in a row, only the first waits for room."""
        deadline = time.monotonic() + (0.0 if self._blocked else self.timeout)
        while True:
            try:
                os.write(self.fd, data)
            except BlockingIOError:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                poll = select.poll()
                poll.register(self.fd, select.POLLOUT)
                poll.poll(remaining * 1000)
            except OSError:
                return False
            else:
                return True


def is_fuller(fd: int, share: float) -> bool:
    """Tell whether more than a share of a pipe's capacity is in use; False if it is no pipe."""
    try:
        used = int.from_bytes(ioctl(fd, _FIONREAD, bytes(4)), sys.byteorder)
        return used > fcntl(fd, F_GETPIPE_SZ) * share
    except OSError:
        return False


def _line(level: str, event: str, fields: str) -> bytes:
    return f"{time.time_ns()} {level} {event} {{{fields}}}\n".encode(*_ENCODING)


def shorten(value: object) -> object:
    """Return a value with long texts, lists and mappings cut, so that it fits in a line."""
    if isinstance(value, str) and len(value) > _MAX_TEXT_CHARS:
        return value[:_MAX_TEXT_CHARS] + "..."
    if isinstance(value, list):
        more = [f"and {len(value) - _MAX_ITEMS} more"] if len(value) > _MAX_ITEMS else []
        return [shorten(item) for item in value[:_MAX_ITEMS]] + more
    if isinstance(value, dict):
        rest = {"...": f"and {len(value) - _MAX_ITEMS} more"} if len(value) > _MAX_ITEMS else {}
        return {key: shorten(value[key]) for key in list(value)[:_MAX_ITEMS]} | rest
    return value


def _encoded_size(text: str) -> int:
    """Return how many bytes a text takes in the pipe."""
    return len(text.encode(*_ENCODING))


def log_child_failure(error: BaseException) -> None:
    """Log the exception that ends a child of the master. Called in that child."""
    log = LogWriter(EVENTS_WRITE, "error", PIPE_TIMEOUT_SECONDS)
    log.event("error", HANDLER_FAILED, error=repr(error), place=call_path(error))
    log.flush()
