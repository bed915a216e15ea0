"""The vocabulary of the log, and how an event is put into the pipe that leads to the logger.

One write of at most PIPE_BUF bytes holds whole events, so nothing tears and nothing is put together
again. An event that finds no room is dropped and counted: what was sent is what was written and
what `log.lost` reports.
"""

from __future__ import annotations

import os
import select
import time

from tetrad.jsonlines import encode, members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

SERVER_STARTED = "server.started"
SERVER_LISTENING = "server.listening"
SERVER_STOPPING = "server.stopping"
SERVER_STOPPED = "server.stopped"
SERVER_RELOADED = "server.reloaded"
SERVER_RELOAD_FAILED = "server.reload_failed"
SERVER_OVERLOADED = "server.overloaded"
SERVER_FAILED = "server.failed"
CLIENT_CONNECTED = "client.connected"
CLIENT_COMMAND = "client.command"
CLIENT_INVALID = "client.invalid"
CLIENT_DISCONNECTED = "client.disconnected"
CLIENT_REFUSED = "client.refused"
HANDLER_LOST = "handler.lost"
LOG_REOPENED = "log.reopened"
LOG_LOST = "log.lost"

# Not events but orders to the logger; they travel in the pipe, so they keep their place.
REOPEN = "logger.reopen"
CONFIGURE = "logger.configure"

ROOM_SECONDS = 0.25
"""How long a handler waits for room in the pipe before it drops what it has to say."""

_LONGEST_TEXT = 400
_MOST_ITEMS = 6


class Journal:
    """One process's end of the pipe. It gathers events, and `flush` sends them.

    `patience` is how many seconds a flush waits for room; the master has none.
    """

    __slots__ = (
        "_blocked",
        "_context",
        "_fd",
        "_gathered",
        "_size",
        "_threshold",
        "lost",
        "lost_in_all",
        "patience",
    )

    def __init__(self, fd: int, level: str, patience: float = 0.0) -> None:
        self._fd = fd
        self._threshold = LEVELS[level]
        self._context = f',"pid":{os.getpid()}'
        self._gathered: list[bytes] = []
        self._size = 0
        self._blocked = False
        self.patience = patience
        self.lost = 0
        self.lost_in_all = 0

    @property
    def level(self) -> int:
        """The least level that is sent."""
        return self._threshold

    def count_lost(self, count: int) -> None:
        """Take note of events that were lost, and are to be reported."""
        self.lost += count
        self.lost_in_all += count

    def take_lost(self) -> int:
        """Return how many were lost and not reported, for somebody else to report."""
        lost, self.lost = self.lost, 0
        return lost

    def set_level(self, level: str) -> None:
        """Send events of this level and above from now on."""
        self._threshold = LEVELS[level]

    def set_context(self, fields: Mapping[str, object]) -> None:
        """Say what every event of this process has from now on, beside its pid."""
        more = "".join([f",{encode(key)}:{encode(value)}" for key, value in fields.items()])
        self._context = f',"pid":{os.getpid()}{more}'

    def event(self, level: str, event: str, /, **fields: object) -> None:
        """Gather one event."""
        if LEVELS[level] < self._threshold:
            return
        head = f'{{"time":{time.time_ns()},"level":"{level}","event":"{event}"{self._context}'
        line = _line(head, fields)
        if len(line) > select.PIPE_BUF:
            line = _line(head, {key: _shortened(value) for key, value in fields.items()})
        if len(line) > select.PIPE_BUF:
            line = _line(head, {})
        self._gather(line)

    def order(self, name: str, /, **fields: object) -> None:
        """Gather an order to the logger."""
        self._gather(_line(f'{{"order":"{name}"', fields))

    def _gather(self, line: bytes) -> None:
        if self._size + len(line) > select.PIPE_BUF:
            self.flush()
        self._gathered.append(line)
        self._size += len(line)

    def flush(self) -> None:
        """Send what was gathered, behind a report of what was lost before it."""
        if self.lost:
            self._report()
        if not self._gathered:
            return
        if self._write(b"".join(self._gathered)):
            self._blocked = False
        else:
            self.count_lost(len(self._gathered))
            self._blocked = True
        self._gathered.clear()
        self._size = 0

    def _report(self) -> None:
        head = f'{{"time":{time.time_ns()},"level":"error","event":"{LOG_LOST}"{self._context}'
        if self._write(_line(head, {"count": self.lost})):
            self.lost = 0

    def _write(self, data: bytes) -> bool:
        """Write all or nothing. Only the first of several failures in a row waits for room."""
        deadline = time.monotonic() + (0.0 if self._blocked else self.patience)
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


def _line(head: str, fields: dict[str, object]) -> bytes:
    tail = f",{members(fields)}}}\n" if fields else "}\n"
    return (head + tail).encode("utf-8", "backslashreplace")


def _shortened(value: object) -> object:
    """Cut what would not fit; the whole of it is for `tetrad check`, not for one line of a log."""
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[:_LONGEST_TEXT] + "..."
    if isinstance(value, list):
        more = [f"and {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else []
        return [_shortened(item) for item in value[:_MOST_ITEMS]] + more
    return value
