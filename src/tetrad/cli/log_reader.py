"""The log, read back: events that match, in lines that a person likes to read.

Files are read from their end backwards, the live one first and then those that were rotated away,
only as far back as is asked for. Lines are bytes until they are shown: what is not an event of ours
goes through as it came.
"""

from __future__ import annotations

import fnmatch
import glob
import gzip
import ipaddress
import json
import os
import re
import stat
import time
import zlib
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from tetrad.ipc.log_protocol import LEVELS
from tetrad.system.text import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES = 1 << 16
_POLL_SECONDS = 0.2
_NEWLINE = b"\n"

_DISORDER_SECONDS = 2.0
"""How far out of order lines may stand: a handler's may wait a little for room in the pipe."""

_HEAD = {"timestamp", "level", "event", "client", "connection"}
_DULL = {"pid", "service", "listener"}
"""What the lines of a client need not say again."""

_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Event(NamedTuple):
    """A line that was understood; `moment` is in local time."""

    moment: datetime
    level: str
    name: str
    fields: dict[str, Any]


class LogFilter(NamedTuple):
    """What is asked for; None: anything. `since` is in seconds since 1970."""

    client: Network | None = None
    connection: str | None = None
    event: str | None = None
    level: str | None = None
    since: float | None = None

    def matches(self, event: Event | None) -> bool:
        """Tell whether a line is asked for; one that is not understood always is."""
        return event is None or (
            (self.event is None or fnmatch.fnmatchcase(event.name, self.event))
            and (self.connection is None or event.fields.get("connection") == self.connection)
            and (self.level is None or LEVELS.get(event.level, 0) >= LEVELS[self.level])
            and (self.client is None or _is_from(event.fields.get("client"), self.client))
            and (self.since is None or event.moment.timestamp() >= self.since)
        )

    def is_too_old(self, event: Event | None) -> bool:
        """Tell whether all lines before this one, too, are older than what is asked for."""
        if event is None or self.since is None:
            return False
        return event.moment.timestamp() < self.since - _DISORDER_SECONDS


def show(path: str, wanted: LogFilter, count: int | None, *, following: bool) -> Iterator[bytes]:
    """Yield the last lines that are asked for and, if following, those still to come.

    `count` None: all there are in the live file, or as far back as `wanted.since` goes. Raises
    OSError if there is no log to read; who follows waits for it.
    """
    fd = _try_open(path) if following else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = 0 if fd is None else _end(fd, whole_lines=following)
        yield from _last(path, fd, end, wanted, count)
        if following:
            fd, coming = None, _follow(path, fd, end)
            yield from (line for line in coming if wanted.matches(parse(line)))
    finally:
        if fd is not None:
            os.close(fd)


def parse(line: bytes) -> Event | None:
    """Return a line's event, or None if it is not one of ours."""
    try:
        fields = json.loads(line)
        moment = datetime.fromisoformat(fields["timestamp"]).astimezone()
        level, name = fields["level"], fields["event"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not isinstance(level, str) or not isinstance(name, str):
        return None
    return Event(moment, level, name, fields)


def render(line: bytes, *, terminal: bool, colour: bool) -> bytes:
    """Return a line for a person; one not understood as it is, but harmless to a terminal."""
    event = parse(line)
    if event is None:
        return (
            escape_unprintable(line.decode(errors="backslashreplace")).encode()
            if terminal
            else line
        )
    level = f"{escape_unprintable(event.level):<7}"
    if colour:
        level = f"\x1b[{_COLOURS.get(event.level, '0')}m{level}\x1b[0m"
    milliseconds = event.moment.microsecond // 1000
    who = [event.fields[key] for key in ("connection", "client") if key in event.fields]
    rest = [
        f"{escape_unprintable(key)}={_shown(value)}"
        for key, value in event.fields.items()
        if key not in _HEAD and not (who and key in _DULL)
    ]
    stamp = f"{event.moment:%m-%d %H:%M:%S}.{milliseconds:03d}"
    words = [stamp, level, f"{escape_unprintable(event.name):<19}", *map(_shown, who), *rest]
    return " ".join(words).encode()


def _shown(value: object) -> str:
    if isinstance(value, str):
        plain = escape_unprintable(value)
        return f'"{plain}"' if " " in plain or not plain else plain
    return escape_unprintable(json.dumps(value))


def _is_from(client: object, network: Network) -> bool:
    if not isinstance(client, str):
        return False
    try:
        return ipaddress.ip_address(client.rpartition(":")[0].strip("[]")) in network
    except ValueError:
        return False


def _last(
    path: str, live: int | None, end: int, wanted: LogFilter, count: int | None
) -> Iterator[bytes]:
    """Return the last lines that are asked for, the oldest first."""
    lines: deque[bytes] = deque()
    history = _history(path, live, end, far=count is not None or wanted.since is not None)
    while count is None or len(lines) < count:
        line = next(history, None)
        if line is None:
            break
        event = parse(line)
        if wanted.is_too_old(event):
            break
        if wanted.matches(event):
            lines.appendleft(line)
    return iter(lines)


def _history(path: str, live: int | None, end: int, *, far: bool) -> Iterator[bytes]:
    """Yield the lines of the live file up to `end`, the last first, then those rotated away."""
    if live is not None:
        yield from _backwards(live, end)
    for rotated in _rotated(path, live) if far else ():
        if rotated.endswith(".gz"):
            yield from reversed(_unpacked(rotated))
        else:
            fd = _try_open(rotated)
            if fd is not None:
                with os.fdopen(fd, "rb"):
                    yield from _backwards(fd, _end(fd, whole_lines=False))


def _rotated(path: str, live: int | None) -> list[str]:
    """Return the files that logrotate has moved away, the latest first."""
    pattern = glob.escape(path)
    found = {*glob.glob(f"{pattern}.*"), *glob.glob(f"{pattern}-*")}
    # While one is being compressed, both are there.
    found = {file for file in found if file.removesuffix(".gz") == file or file[:-3] not in found}
    ages = ((_age(file, live), file) for file in found)
    return [file for age, file in sorted((age, file) for age, file in ages if age is not None)]


def _age(path: str, live: int | None) -> tuple[float, int] | None:
    """Return what sorts rotated files, the latest first: when they were written, then their name.

    None is for what is no file (any more), or is the one that is being read: it may be rotated
    away meanwhile.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if live is not None and os.path.samestat(status, os.fstat(live)):
        return None
    number = re.search(r"([.-])(\d+)(\.gz)?$", path)
    rank = 0 if number is None else int(number[2]) * (1 if number[1] == "." else -1)
    return -status.st_mtime, rank


def _unpacked(path: str) -> list[bytes]:
    """Return the lines of a compressed file, as far as it can be read."""
    pieces = []
    try:
        with gzip.open(path, "rb") as packed:
            while piece := packed.read(_BLOCK_BYTES):
                pieces.append(piece)
    except (OSError, EOFError, zlib.error):
        pass  # torn, or not compressed at all; what was read is what there is
    data = b"".join(pieces)
    return data.removesuffix(_NEWLINE).split(_NEWLINE) if data else []


def _end(fd: int, *, whole_lines: bool) -> int:
    """Return the size of a file or, of one that is being written, of its whole lines."""
    size = position = os.fstat(fd).st_size
    while whole_lines and position:
        start = max(0, position - _BLOCK_BYTES)
        newline = os.pread(fd, position - start, start).rfind(_NEWLINE)
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0 if whole_lines else size


def _backwards(fd: int, end: int) -> Iterator[bytes]:
    """Yield the lines that end before `end`, the last first."""
    if not end:
        return
    position = end - 1 if os.pread(fd, 1, end - 1) == _NEWLINE else end
    pieces: list[bytes] = []  # of the line that is being put together, its end first
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
    """Yield lines as they are written, for ever, across rotation, truncation and deletion."""
    while True:
        if fd is not None:
            with os.fdopen(fd, "rb"):
                yield from _until_replaced(path, fd, position)
        else:
            time.sleep(_POLL_SECONDS)
        fd, position = _try_open(path), 0


def _until_replaced(path: str, fd: int, position: int) -> Iterator[bytes]:
    """Yield the lines of one file, to its end, which comes when `path` leads to another."""
    pieces: list[bytes] = []  # of a line that has not come whole
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
        # Once it is replaced nothing more is written to it: read on to its end, then leave.
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
