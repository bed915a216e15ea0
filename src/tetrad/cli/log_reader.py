"""Reads the log backwards, through rotated files, and follows it. Prints nothing.

Files are read from their end, the current one first, and only as far back as needed. Lines are
bytes, in any of the formats of the log; lines that are no events of tetrad pass unchanged.
"""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import ipaddress
import itertools
import json
import os
import re
import time
from collections import deque
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tetrad.cli import log_files
from tetrad.cli.log_files import UnreadableError
from tetrad.ipc.log_protocol import LEVELS
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_BLOCK_BYTES = 1 << 16
_POLL_SECONDS = 0.2
_NEWLINE = b"\n"

_FIRST_LINES = 1000
"""How many lines of a rotated file are searched for an event of tetrad."""

_MAX_LINE_BYTES = 1 << 24
"""A longer line, such as the hole of a sparse file, ends the reading of its file."""

_MAX_DISORDER_SECONDS = 2.0
"""How far out of order lines can be: a handler may wait a little to write an event."""

_MAX_DISORDER_LINES = 1000
"""How many events in a row can be too old: those of a start before the clock was set."""

_FIRST_BYTES = {b"{", b"t", b"\x1b", *(b"%d" % digit for digit in range(10))}
"""How an event begins in JSON, in `logfmt`, and in `console` with and without colours."""

_MAX_TEXT_LINE_BYTES = 1 << 14
"""A longer line is no event in the formats `logfmt` or `console`: a write to the pipe is short."""

_TYPED_FIELDS = {
    *("pid", "port", "clients", "accepted", "days", "duration", "bytes", "bytes_in", "bytes_out"),
    *("commands", "status", "suppressed", "handler", "count", "cut", "check", "config"),
    *("changes", "errors"),
}
"""The fields that are not always text. In `logfmt` and `console` only the name tells it."""

_NULLS = {"", "None"}
_BOOLEANS = {"true": True, "True": True}

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_LOGFMT_FIELD = re.compile(r"""([^\s=]+)(?:=("(?:[^"\\]|\\.)*"|\S*))?(?: |$)""")
_CONSOLE_HEAD = re.compile(r"(\S+) \[(\w+) *\] (\S+) *")
_CONSOLE_FIELD = re.compile(
    rf"""([^\s=]+)=({_QUOTED}|[\[{{](?:{_QUOTED}|[^\]}}'"])*[\]}}]|\S*)(?: |$)"""
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Event(NamedTuple):
    """A parsed line; `moment` is in local time."""

    moment: datetime
    level: str
    name: str
    fields: dict[str, Any]


class LogFilter(NamedTuple):
    """Conditions on events; None: no condition. `since` and `until` are in seconds since 1970."""

    client: Network | None = None
    connection: str | None = None
    event: str | None = None
    level: str | None = None
    since: float | None = None
    until: float | None = None
    reason: str | None = None

    def matches(self, event: Event | None) -> bool:
        """Tell whether an event meets all conditions; None, a line that is no event, does."""
        return event is None or (
            (self.event is None or fnmatch.fnmatchcase(event.name, self.event))
            and (self.connection is None or event.fields.get("connection") == self.connection)
            and (self.level is None or LEVELS.get(event.level, 0) >= LEVELS[self.level])
            and (self.client is None or _is_from(event.fields.get("client"), self.client))
            and (self.since is None or event.moment.timestamp() >= self.since)
            and (self.until is None or event.moment.timestamp() <= self.until)
            and (self.reason is None or _has_reason(event, self.reason))
        )

    def is_too_old(self, event: Event | None) -> bool:
        """Tell whether an event is so old that the lines before it are older than `since`, too."""
        if event is None or self.since is None:
            return False
        return event.moment.timestamp() < self.since - _MAX_DISORDER_SECONDS


def read(
    path: str,
    wanted: LogFilter,
    count: int | None,
    *,
    following: bool,
    report: Callable[[dict[str, list[str]]], None] = lambda _: None,
) -> Iterator[bytes]:
    """Yield the last `count` matching lines and, if following, new ones without end.

    `count` None: all matching lines of the current file, or since `wanted.since`. Raises OSError
    if there is no log; if following, waits for it instead. `report` gets the names of files that
    are not read, by the reason.
    """
    fd = None
    try:
        fd = log_files.open_regular(path)
    except FileNotFoundError:
        if not following:
            raise
    try:
        end = 0 if fd is None else _end(fd, complete_lines=following)
        tail = _Tail(wanted, count)
        tail.read(path, fd, end)
        if tail.unread:
            report(tail.unread)
        yield from tail.lines
        if following:
            fd, lines = None, _follow(path, fd, end)
            yield from (line for line in lines if wanted.matches(parse(line)))
    finally:
        if fd is not None:
            os.close(fd)


def parse(line: bytes) -> Event | None:
    """Return the event of a line, or None if it is no event of tetrad."""
    if line[:1] not in _FIRST_BYTES:
        return None
    try:
        fields = json.loads(line) if line[:1] == b"{" else _parse_text(line)
        moment = datetime.fromisoformat(fields["timestamp"]).astimezone()
        level, name = fields["level"], fields["event"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not isinstance(level, str) or not isinstance(name, str):
        return None
    return Event(moment, level, name, fields)


def _parse_text(line: bytes) -> dict[str, Any]:
    """Return the fields of a line in `logfmt` or `console`. Raises ValueError."""
    if len(line) > _MAX_TEXT_LINE_BYTES:
        raise ValueError("too long")
    text = line.decode("ascii")
    if text.startswith("timestamp="):
        return _fields(_LOGFMT_FIELD, text, _logfmt_text)
    text = _COLOUR.sub("", text)
    head = _CONSOLE_HEAD.match(text)
    if head is None:
        raise ValueError("no time, level and event")
    fields = dict(zip(("timestamp", "level", "event"), head.groups(), strict=True))
    return fields | _fields(_CONSOLE_FIELD, text[head.end() :].rstrip(), _console_text)


def _fields(pattern: re.Pattern[str], text: str, unquote: Callable[[str], str]) -> dict[str, Any]:
    """Return the fields of a text. Raises ValueError."""
    fields: dict[str, Any] = {}
    position = 0
    while position < len(text):
        field = pattern.match(text, position)
        if field is not None and field[1] not in fields:
            position = field.end()
            name = field[1]
            is_flag = field[2] is None  # how logfmt writes True
            fields[name] = True if is_flag else _value(name, field[2], unquote)
        elif fields:  # older versions of structlog do not quote a text with spaces
            word, space, _ = text[position:].partition(" ")
            position += len(word + space)
            fields[name] = f"{fields[name]} {word}"
        else:
            raise ValueError("expected a field")
    return fields


def _value(name: str, written: str, unquote: Callable[[str], str]) -> object:
    text = unquote(written)
    if name not in _TYPED_FIELDS:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return True
    try:
        value = ast.literal_eval(text)
        json.dumps(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def _logfmt_text(written: str) -> str:
    if written[:1] != '"':
        return written  # a backslash is not escaped: "\\n" can be two characters or a line feed
    return re.sub(r'\\(["\\n])', lambda match: match[1].replace("n", "\n"), written[1:-1])


def _console_text(written: str) -> str:
    return str(ast.literal_eval(written)) if written[:1] in {"'", '"'} else written


def _has_reason(event: Event, pattern: str) -> bool:
    reason = event.fields.get("reason")
    return isinstance(reason, str) and fnmatch.fnmatchcase(reason, pattern)


def _is_from(client: object, network: Network) -> bool:
    if not isinstance(client, str):
        return False
    try:
        return ipaddress.ip_address(client.rpartition(":")[0].strip("[]")) in network
    except ValueError:
        return False


class _Tail:
    """The last matching lines of a log, the oldest first; they are collected backwards.

    `unread` has the names of files that are not read, or not completely, by the reason.
    """

    def __init__(self, wanted: LogFilter, count: int | None) -> None:
        self.lines: deque[bytes] = deque()
        self.unread: dict[str, list[str]] = {}
        self._wanted, self._count = wanted, count

    def read(self, path: str, current: int | None, end: int) -> None:
        """Read the current file before `end`, then rotated files, the last first, as needed."""
        is_enough = False
        if current is not None:
            is_enough = self._attempt(path, partial(self._add_backwards, _backwards(current, end)))
        with_rotated = self._count is not None or self._wanted.since is not None
        if is_enough or not with_rotated:
            return
        for rotated in log_files.rotated(path):
            if self._attempt(rotated, partial(self._add_file, rotated, current)):
                break

    def _attempt(self, path: str, add: Callable[[], bool]) -> bool:
        """Add the lines of a file; tell whether no earlier ones are needed."""
        try:
            return add()
        except FileNotFoundError:
            return False  # it has been renamed
        except OSError as error:
            reason = reason_of(error)
        except UnreadableError as error:
            reason = str(error)
        self.unread.setdefault(reason, []).append(os.path.basename(path))
        return len(self.lines) == self._count

    def _add_file(self, path: str, current: int | None) -> bool:
        """Add the lines of a rotated file, if it is a log: other programs keep files beside it."""
        fd = log_files.open_regular(path)
        with os.fdopen(fd, "rb"):
            start = os.pread(fd, _BLOCK_BYTES, 0)
            is_renamed = current is not None and os.path.sameopenfile(fd, current)
            if is_renamed or not start:
                return False
            pieces = log_files.unpacked(fd, start)
            if pieces is None:
                _require_log(start)
                return self._add_backwards(_backwards(fd, _end(fd, complete_lines=False)))
            with contextlib.closing(pieces):
                return self._add_forwards(pieces)

    def _add_backwards(self, lines: Iterator[bytes]) -> bool:
        older = 0
        for line in lines:
            if len(self.lines) == self._count or older > _MAX_DISORDER_LINES:
                return True
            event = parse(line)
            older = older + 1 if self._wanted.is_too_old(event) else 0
            if self._wanted.matches(event):
                self.lines.appendleft(line)
        return older > 0 or len(self.lines) == self._count

    def _add_forwards(self, pieces: Iterator[bytes]) -> bool:
        """Add the lines of a compressed file; memory is needed only for those that are added."""
        missing = None if self._count is None else self._count - len(self.lines)
        found: deque[bytes] = deque(maxlen=missing)
        begins_too_old = None
        try:
            start = next(pieces, b"")
            _require_log(start)
            lines = _split(itertools.chain((start,), pieces))
            if self._wanted == LogFilter():
                found.extend(lines)
            for line in lines:
                event = parse(line)
                if begins_too_old is None:
                    begins_too_old = self._wanted.is_too_old(event)
                if self._wanted.matches(event):
                    found.append(line)
        finally:
            self.lines.extendleft(reversed(found))
        return bool(begins_too_old) or len(self.lines) == self._count


def _require_log(start: bytes) -> None:
    """Raise UnreadableError unless a file begins as a log of tetrad."""
    if not any(parse(line) for line in start.split(_NEWLINE, _FIRST_LINES)):
        raise UnreadableError("binary data" if b"\0" in start else "no events of tetrad")


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a text in pieces."""
    rest: list[bytes] = []  # of an incomplete line
    size = 0
    for piece in pieces:
        first, *lines = piece.split(_NEWLINE)
        rest.append(first)
        size += len(first)
        if lines:
            yield b"".join(rest)
            rest = [lines.pop()]
            size = len(rest[0])
            yield from lines
        _require_length(size)
    if any(rest):
        yield b"".join(rest)


def _require_length(size: int) -> None:
    if size > _MAX_LINE_BYTES:
        raise UnreadableError("a line of more than 16 MiB; read in part")


def _end(fd: int, *, complete_lines: bool) -> int:
    """Return the size of a file, or of its complete lines if it is still being written."""
    size = position = os.fstat(fd).st_size
    while complete_lines and position and size - position <= _MAX_LINE_BYTES:
        start = max(0, position - _BLOCK_BYTES)
        newline = os.pread(fd, position - start, start).rfind(_NEWLINE)
        if newline >= 0:
            return start + newline + 1
        position = start
    return size if position or not complete_lines else 0


def _backwards(fd: int, end: int) -> Iterator[bytes]:
    """Yield the lines that end before `end`, the last first."""
    if not end:
        return
    position = end - 1 if os.pread(fd, 1, end - 1) == _NEWLINE else end
    pieces: list[bytes] = []  # of an incomplete line, its end first
    while position:
        start = max(0, position - _BLOCK_BYTES)
        first, *lines = os.pread(fd, position - start, start).split(_NEWLINE)
        position = start
        if lines:
            pieces.append(lines.pop())
            yield b"".join(reversed(pieces))
            yield from reversed(lines)
            pieces = [first]
        else:
            pieces.append(first)
            _require_length(len(pieces) * _BLOCK_BYTES)
    yield b"".join(reversed(pieces))


def _follow(path: str, fd: int | None, position: int) -> Iterator[bytes]:
    """Yield new lines without end, across rotation, truncation and deletion of the file."""
    while True:
        if fd is not None:
            with os.fdopen(fd, "rb"):
                yield from _until_replaced(path, fd, position)
        else:
            time.sleep(_POLL_SECONDS)
        fd, position = _try_open(path), 0


def _until_replaced(path: str, fd: int, position: int) -> Iterator[bytes]:
    """Yield new lines of one file until it is truncated or `path` is another file."""
    pieces: list[bytes] = []  # of an incomplete line
    replaced = False
    while True:
        data = os.pread(fd, _BLOCK_BYTES, position)
        position += len(data)
        first, *lines = data.split(_NEWLINE)
        pieces.append(first)
        if lines:
            yield b"".join(pieces)
            pieces = [lines.pop()]
            yield from lines
        if data:
            continue
        if replaced or os.fstat(fd).st_size < position:
            break
        # After the replacement the daemon writes no more to it: one more read finds the rest.
        replaced = _is_replaced(path, fd)
        if not replaced:
            time.sleep(_POLL_SECONDS)
    if any(pieces):
        yield b"".join(pieces)


def _is_replaced(path: str, fd: int) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False


def _try_open(path: str) -> int | None:
    try:
        return log_files.open_regular(path)
    except OSError:
        return None
