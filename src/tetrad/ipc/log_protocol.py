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

from tetrad.system.json_lite import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.master.saved_state import LogWriterState

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

SPEAKER = "\x1e"
"""Stands at the head of a write."""

CHECK = "check"
"""A field of who speaks of a balancer's look whether we live: what is usual about that is worth a
line at level debug only."""

ORDER = "order"
"""Stands in the place of the level of what is an order to the logger, which keeps its place."""

REOPEN = "logger.reopen"
CONFIGURE = "logger.configure"
LEAVE = "logger.leave"

ROOM_SECONDS = 0.25
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
        "_size",
        "_speaker",
        "_threshold",
        "due",
        "gathered",
        "lost",
        "lost_in_all",
        "patience",
    )

    def __init__(self, fd: int, level: str, patience: float = 0.0) -> None:
        self._fd = fd
        self._threshold = LEVELS[level]
        self.gathered: list[bytes] = []
        self._count = 0
        self.due: dict[str, bytes] = {}
        self._blocked = False
        self.patience = patience
        self.lost = 0
        self.lost_in_all = 0
        self.speak_of(b"")

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
        self.lost_in_all += count

    def take_lost(self) -> int:
        """Return how many were lost and not reported, for somebody else to report."""
        lost, self.lost = self.lost, 0
        return lost

    def set_level(self, level: str) -> None:
        """Send events of this level and above from now on."""
        self._threshold = LEVELS[level]

    def speak_of(self, context: bytes) -> None:
        """Say what every event of this process has from now on, as JSON, beside its pid."""
        self.flush()
        self._context = context
        more = b"," + context if context else b""
        self._speaker = b'%b{"pid":%d%b}\n' % (SPEAKER.encode(), os.getpid(), more)
        self._size = len(self._speaker)

    def speak_also_of(self, more: bytes) -> None:
        """Say what else every event has from now on."""
        self.speak_of(self._context + b"," + more)

    def event(self, level: str, event: str, /, **fields: object) -> None:
        """Gather one event, shortened if it would not fit a write."""
        room = select.PIPE_BUF - len(self._speaker) - len(_line(level, event, ""))
        text = members(fields)
        if _size(text) > room:
            text = ""
            for name, value in fields.items():
                longer = text + "," * bool(text) + members({name: shortened(value)})
                text = longer if _size(longer) <= room else text
        self.tell(level, event, text)

    def tell(self, level: str, event: str, fields: str = "") -> None:
        """Gather one event; `fields` are JSON, and left out if they would not fit a write."""
        if LEVELS[level] >= self._threshold:
            line = _line(level, event, fields)
            if len(self._speaker) + len(line) > select.PIPE_BUF:
                line = _line(level, event, "")
            self._gather(line, 1)

    def insist(self, level: str, event: str, /, **fields: object) -> None:
        """Gather what must not be lost: an order, or what cannot be counted. Twice is once.

        It keeps its place, and if there is no room, every flush tries again.
        """
        self.flush()
        self.due[event] = _line(level, event, members(fields))
        self.flush()

    @property
    def is_behind(self) -> bool:
        """Whether something waits for room in the pipe."""
        return bool(self.lost or self.due)

    def leave(self) -> LogWriterState:
        """Return what the journal of the next version has to go on with."""
        # Orders are for a logger that is replaced; what cannot be counted has to be told.
        due = self.due.get(LOG_LOST)
        return {"lost": self.lost, "lost_in_all": self.lost_in_all, "due": due}

    def inherit(self, left: LogWriterState) -> None:
        """Go on from what the version before has left."""
        self.lost, self.lost_in_all = left["lost"], left["lost_in_all"]
        if left["due"] is not None:
            self.due[LOG_LOST] = left["due"]

    def gather(self, lines: bytes, count: int) -> None:
        """Gather events that were written down elsewhere, in the form that is at the head."""
        if lines:
            self._gather(lines, count)

    def send(self, whole: bytes, count: int) -> None:
        """Send a write that was put together elsewhere, with `count` events in it."""
        self._blocked = not self._write(whole)
        if self._blocked:
            self.count_lost(count)

    def _gather(self, lines: bytes, count: int) -> None:
        if self._size + len(lines) > select.PIPE_BUF:
            self.flush()
        self.gathered.append(lines)
        self._count += count
        self._size += len(lines)

    def flush(self) -> None:
        """Send what was gathered, behind what is due and a report of what was lost before it."""
        for event, line in list(self.due.items()):
            if self._write(self._speaker + line):
                del self.due[event]
        if self.lost and not self.patience:
            self._report()
        if not self.gathered:
            return
        if self._write(self._speaker + b"".join(self.gathered)):
            self._blocked = False
        else:
            self.count_lost(self._count)
            self._blocked = True
        self.gathered.clear()
        self._count = 0
        self._size = len(self._speaker)

    def _report(self) -> None:
        report = _line("error", LOG_LOST, f'"count":{self.lost}')
        if self._write(self._speaker + report):
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


def place_of(error: BaseException) -> str:
    """Return where an error was raised, as file and line, from the outermost call inwards."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places)
