"""Reads the log backwards, through rotated files, and follows it. Prints nothing.

Files are read from their end, the current one first, and only as far back as needed. Lines are
bytes, in any of the formats of the log; lines that are no events of tetrad pass unchanged.
"""

from __future__ import annotations

import ast
import fnmatch
import glob
import gzip
import ipaddress
import json
import os
import re
import stat
import time
from collections import deque
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tetrad.ipc.log_protocol import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_BLOCK_BYTES = 1 << 16
_POLL_SECONDS = 0.2
_NEWLINE = b"\n"

_FIRST_LINES = 1000
"""How many lines of a rotated file are searched for an event of tetrad."""

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
"""The compressions that are read, by the first bytes of a file."""

_MAX_DISORDER_SECONDS = 2.0
"""How far out of order lines can be: a handler may wait a little to write an event."""

_MAX_DISORDER_LINES = 1000
"""How many events in a row can be too old: those of a start before the clock was set."""

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

_COMPRESSED = re.compile(r"\.(?:gz|bz2|xz|zst)$")

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


def read(path: str, wanted: LogFilter, count: int | None, *, following: bool) -> Iterator[bytes]:
    """Yield the last `count` matching lines and, if following, new ones without end.

    `count` None: all matching lines of the current file, or since `wanted.since`. Raises OSError
    if there is no log; if following, waits for it instead.
    """
    fd = _try_open(path) if following else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = 0 if fd is None else _end(fd, complete_lines=following)
        yield from _last(path, fd, end, wanted, count)
        if following:
            fd, lines = None, _follow(path, fd, end)
            yield from (line for line in lines if wanted.matches(parse(line)))
    finally:
        if fd is not None:
            os.close(fd)


def parse(line: bytes) -> Event | None:
    """Return the event of a line, or None if it is no event of tetrad."""
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
        return written.replace("\\n", "\n")
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


def _last(
    path: str, current: int | None, end: int, wanted: LogFilter, count: int | None
) -> Iterator[bytes]:
    """Return the last matching lines, the oldest first."""
    lines: deque[bytes] = deque()
    with_rotated = count is not None or wanted.since is not None
    for file in _files_backwards(path, current, end, with_rotated=with_rotated):
        older = 0
        for line in file:
            if len(lines) == count or older > _MAX_DISORDER_LINES:
                break
            event = parse(line)
            older = older + 1 if wanted.is_too_old(event) else 0
            if wanted.matches(event):
                lines.appendleft(line)
        if older or len(lines) == count:
            break
    return iter(lines)


def _files_backwards(
    path: str, current: int | None, end: int, *, with_rotated: bool
) -> Iterator[Iterable[bytes]]:
    """Yield the lines of the current file before `end`, then of rotated files, the last first."""
    if current is not None:
        yield _backwards(current, end)
    for rotated in _rotated(path, current) if with_rotated else ():
        fd = _try_open(rotated)
        if fd is None:
            continue
        with os.fdopen(fd, "rb") as file:
            start = os.pread(fd, _BLOCK_BYTES, 0)
            kind = next(
                (one for magic, one in _COMPRESSIONS.items() if start.startswith(magic)), ""
            )
            if kind:
                lines = _decompressed(kind, file)
                if _is_log(lines[:_FIRST_LINES]):
                    yield reversed(lines)
            elif _is_log(start.split(_NEWLINE, _FIRST_LINES)):
                yield _backwards(fd, _end(fd, complete_lines=False))


def _is_log(lines: list[bytes]) -> bool:
    """Tell whether a file is a log by its first lines: other programs keep files beside it."""
    return any(parse(line) for line in lines)


def _rotated(path: str, current: int | None) -> list[str]:
    """Return the files that logrotate has renamed, the latest first."""
    pattern = glob.escape(path)
    found = {*glob.glob(f"{pattern}.*"), *glob.glob(f"{pattern}-*")}
    # While a file is being compressed, both exist.
    found = {file for file in found if _COMPRESSED.sub("", file) not in found - {file}}
    keys = ((_sort_key(file, current), file) for file in found)
    return [file for key, file in sorted((key, file) for key, file in keys if key is not None)]


def _sort_key(path: str, current: int | None) -> tuple[float, int] | None:
    """Return a key that sorts rotated files, the latest first: by time of change, then by name.

    None: not a regular file, no longer there, or the file that is being read as the current one,
    which may just have been renamed.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if current is not None and os.path.samestat(status, os.fstat(current)):
        return None
    number = re.search(r"([.-])(\d+)$", _COMPRESSED.sub("", path))
    rank = 0 if number is None else int(number[2]) * (1 if number[1] == "." else -1)
    return -status.st_mtime, rank


def _open_compressed(kind: str, compressed: IO[bytes]) -> IO[bytes]:
    """Open a compressed file. Raises ImportError if this Python lacks the module."""
    if kind == "bzip2":
        import bz2

        return bz2.open(compressed)
    if kind == "xz":
        import lzma

        return lzma.open(compressed)
    return gzip.open(compressed)  # type: ignore[return-value]


def _decompressed(kind: str, compressed: IO[bytes]) -> list[bytes]:
    """Return the lines of a compressed file; if it is damaged, those before the damage."""
    pieces = []
    try:
        with _open_compressed(kind, compressed) as file:
            while piece := file.read(_BLOCK_BYTES):
                pieces.append(piece)
    except Exception:  # noqa: BLE001, S110 - each format has errors of its own
        pass  # incomplete or damaged; or this Python has no module for the format
    data = b"".join(pieces)
    return data.removesuffix(_NEWLINE).split(_NEWLINE) if data else []


def _end(fd: int, *, complete_lines: bool) -> int:
    """Return the size of a file, or of its complete lines if it is still being written."""
    size = position = os.fstat(fd).st_size
    while complete_lines and position:
        start = max(0, position - _BLOCK_BYTES)
        newline = os.pread(fd, position - start, start).rfind(_NEWLINE)
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0 if complete_lines else size


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
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
