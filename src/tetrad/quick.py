"""The first moments of a session, in which most of them end.

Most clients have their question ready and leave with the answer. Every page of memory that a fresh
handler touches has to be copied for it, and that is most of what a session costs: so this is one
function, which makes nothing that it may not need, and whose reads block, but only for a moment
(`tetrad.listeners.READ_SECONDS`). A client that says anything but one command at a time, or that
makes us wait, goes on in a `tetrad.session`.
"""

from __future__ import annotations

import os
import time
from _socket import SHUT_WR

from tetrad import events
from tetrad.jsonlines import members
from tetrad.protocol import LENGTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tetrad.commands import Clock, Close

_MOST_COMMANDS = 8
_LONGEST_ANSWER = 256
"""So many of them, of that length, fit the buffer of any socket: a write never blocks."""

_READ_BYTES = 448
"""Small enough to be read into memory of the interpreter's own, where a page is at hand."""

_MICROSECONDS = 1_000_000
_NANOSECONDS = 1_000_000_000

_BEGIN = f'{events.SPEAKER}{{"pid":%d,%b}}\n'.encode()
_CONNECTED = f"%d info {events.CLIENT_CONNECTED} {{}}\n".encode()
_DISCONNECTED = (
    f'%d info {events.CLIENT_DISCONNECTED} {{"reason":"%b","duration":%d.%06d,'
    '"bytes_in":%d,"bytes_out":%d,"commands":%d}\n'
).encode()


class Begun:
    """A session so far. It goes on, unless it `is_over` but for the goodbye or has met an `error`.

    `since` is in seconds of the monotonic clock; `data` was read, and nothing is done about it yet;
    `told` is what the log is to be told: that it has begun, and of the commands.
    """

    __slots__ = ("bytes_in", "bytes_out", "commands", "data", "error", "is_over", "since", "told")

    def __init__(self, since: float) -> None:
        self.since = since
        self.told = b""
        self.bytes_in = 0
        self.bytes_out = 0
        self.commands = 0
        self.data = b""
        self.is_over = False
        self.error: OSError | None = None


class Quick:
    """Serves clients of commands, whose answers are made before they are forked for."""

    __slots__ = ("_answers", "_commands", "_is_told", "_journal", "_since", "_until")

    def __init__(self, commands: dict[bytes, Clock | Close], journal: events.Journal) -> None:
        self._commands = commands
        self._journal = journal
        self._is_told = journal.level <= events.LEVELS["info"]
        self._answers: dict[bytes, tuple[bytes, bytes, bool]] = {}
        self._since = self._until = 0

    def refresh(self) -> None:
        """Have answers that hold for the second that we are in."""
        now = time.time_ns()
        if self._since <= now < self._until:
            return
        self._since = now // _NANOSECONDS * _NANOSECONDS
        self._until = self._since + _NANOSECONDS
        for name, command in self._commands.items():
            answer = command.answer()
            if len(answer) <= _LONGEST_ANSWER:
                self._answers[name] = (answer, _line_of(name), command.closes)

    def serve(self, client: _socket.socket, context: bytes) -> Begun | None:
        """Serve a client and close it; or return what has begun, for a session to go on with."""
        since = time.monotonic_ns()
        # What is told, and with which numbers, is put together at the very end.
        told = _CONNECTED
        numbers: tuple[int, ...] = (time.time_ns(),)
        fd = client.fileno()
        commands = bytes_out = 0
        reason, pending, error = b"eof", None, None
        try:
            while commands < _MOST_COMMANDS:
                pending = os.read(fd, _READ_BYTES)
                now = time.time_ns()
                prepared = self._answers.get(pending)
                if prepared is None or not self._since <= now < self._until:
                    break
                answer, line, closes = prepared
                os.write(fd, answer)
                pending = None
                bytes_out += len(answer)
                commands += 1
                told += line
                numbers += (now,)
                if closes:
                    reason = b"quit"
                    client.shutdown(SHUT_WR)
                    pending = os.read(fd, _READ_BYTES)
                    break
        except BlockingIOError:
            pass
        except OSError as failed:
            error = failed
        bytes_in = LENGTH * commands
        if pending == b"":  # the client's end
            client.close()
            took = (time.monotonic_ns() - since) // 1000
            ended = (time.time_ns(), reason, took // _MICROSECONDS, took % _MICROSECONDS)
            counts = (bytes_in, bytes_out, commands)
            if self._is_told:
                whole = (os.getpid(), context) + numbers + ended + counts  # noqa: RUF005 - no list
                self._journal.send((_BEGIN + told + _DISCONNECTED) % whole, commands + 2)
            return None
        begun = Begun(since / _NANOSECONDS)
        begun.data = pending or b""
        begun.told = told % numbers if self._is_told else b""
        begun.commands = commands
        begun.bytes_in = bytes_in + len(begun.data)
        begun.bytes_out = bytes_out
        begun.is_over = reason == b"quit"
        begun.error = error
        return begun


def _line_of(name: bytes) -> bytes:
    """Return an event, without its time."""
    fields = members({"command": name.decode()}).replace("%", "%%")
    return f"%d info {events.CLIENT_COMMAND} {{{fields}}}\n".encode()
