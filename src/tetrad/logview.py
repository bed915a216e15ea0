"""The log, read back: events that match, in lines that a person likes to read.

Files are read from their end backwards, the live one first and then those that were rotated away,
only as far back as is asked for.
"""

from __future__ import annotations

import fnmatch
import glob
import gzip
import ipaddress
import json
import os
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from tetrad.events import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES = 1 << 16
_POLL_SECONDS = 0.2
_HEADS = ("timestamp", "level", "event", "client", "connection")
_DULL = ("pid", "service", "listener")
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Wanted(NamedTuple):
    """What is asked for; None: anything. `since` is in seconds since 1970."""

    client: Network | None = None
    connection: str | None = None
    event: str | None = None
    level: str | None = None
    since: float | None = None

    def matches(self, fields: dict[str, Any]) -> bool:
        """Tell whether an event is asked for."""
        return (
            (self.event is None or fnmatch.fnmatchcase(str(fields.get("event")), self.event))
            and (self.connection is None or fields.get("connection") == self.connection)
            and (self.level is None or LEVELS.get(fields["level"], 0) >= LEVELS[self.level])
            and (self.client is None or _is_from(fields.get("client"), self.client))
        )

    def is_too_old(self, fields: dict[str, Any]) -> bool:
        """Tell whether an event, and so all before it, is older than what is asked for."""
        return self.since is not None and _moment(fields).timestamp() < self.since


def show(path: str, wanted: Wanted, count: int | None, *, following: bool) -> Iterator[str]:
    """Yield the last lines that are asked for and, if following, those still to come.

    Raises OSError if there is no log to read.
    """
    if not following:
        yield from _last(path, wanted, count)
        return
    # The end is marked before the past is read: a line between the two is shown twice, never lost.
    coming = _follow(path, wanted)
    yield from _last(path, wanted, count) if os.path.exists(path) else ()
    yield from coming


def _last(path: str, wanted: Wanted, count: int | None) -> list[str]:
    """Return the last `count` lines that are asked for, or all of them, the oldest first."""
    lines: deque[str] = deque()
    for file in [path, *_rotated(path)]:
        for line in _backwards(file):
            fields = parse(line)
            if fields is not None and wanted.is_too_old(fields):
                return list(lines)
            if fields is None or wanted.matches(fields):
                lines.appendleft(line)
            if count is not None and len(lines) >= count:
                return list(lines)
        if count is None and wanted.since is None:
            break
    return list(lines)


def _follow(path: str, wanted: Wanted) -> Iterator[str]:
    """Return the lines that are asked for as they are written, for ever, across rotations."""
    return _lines_from(path, _open_at_end(path), wanted)


def _lines_from(path: str, file: int | None, wanted: Wanted) -> Iterator[str]:
    rest = b""
    while True:
        data = os.read(file, _BLOCK_BYTES) if file is not None else b""
        *whole, rest = (rest + data).split(b"\n")
        for line in (raw.decode("utf-8", "replace") for raw in whole):
            fields = parse(line)
            if fields is None or wanted.matches(fields):
                yield line
        if not data:
            time.sleep(_POLL_SECONDS)
            file = _current(path, file)


def parse(line: str) -> dict[str, Any] | None:
    """Return a line's event, or None if it is not one of ours."""
    try:
        fields = json.loads(line)
        _moment(fields)
    except (ValueError, KeyError, TypeError):
        return None
    return fields if {"level", "event"} <= fields.keys() else None


def render(line: str, *, colour: bool) -> str:
    """Return a line for a person; one that is not understood as it is."""
    fields = parse(line)
    if fields is None:
        return line
    moment = _moment(fields).astimezone()
    level = fields["level"]
    shown = f"{level:<7}"
    if colour:
        shown = f"\x1b[{_COLOURS.get(level, '0')}m{shown}\x1b[0m"
    head = f"{moment:%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} {shown} {fields['event']:<19}"
    who = [str(fields[key]) for key in ("connection", "client") if key in fields]
    rest = [
        f"{key}={_shown(value)}"
        for key, value in fields.items()
        if key not in _HEADS and not (who and key in _DULL)
    ]
    return " ".join([head, *who, *rest])


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(text) if isinstance(value, str) and (" " in text or not text) else text


def _moment(fields: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(fields["timestamp"])


def _is_from(client: object, network: Network) -> bool:
    if not isinstance(client, str) or client.startswith("unix:"):
        return False
    try:
        return ipaddress.ip_address(client.rpartition(":")[0].strip("[]")) in network
    except ValueError:
        return False


def _rotated(path: str) -> list[str]:
    """Return the files that logrotate has moved away, the latest first."""
    found = [*glob.glob(f"{glob.escape(path)}.*"), *glob.glob(f"{glob.escape(path)}-*")]
    return sorted(filter(os.path.isfile, found), key=os.path.getmtime, reverse=True)


def _backwards(path: str) -> Iterator[str]:
    """Yield a file's lines, the last first."""
    if path.endswith(".gz"):
        with gzip.open(path, "rb") as packed:
            yield from (
                raw.decode("utf-8", "replace") for raw in reversed(packed.read().splitlines())
            )
        return
    with open(path, "rb") as file:
        position, rest = file.seek(0, os.SEEK_END), b""
        while position:
            size = min(_BLOCK_BYTES, position)
            position -= size
            rest, *whole = (os.pread(file.fileno(), size, position) + rest).split(b"\n")
            yield from (raw.decode("utf-8", "replace") for raw in reversed(whole) if raw)
        if rest:
            yield rest.decode("utf-8", "replace")


def _open_at_end(path: str) -> int | None:
    file = _try_open(path)
    if file is not None:
        os.lseek(file, 0, os.SEEK_END)
    return file


def _current(path: str, file: int | None) -> int | None:
    """Return the file that `path` leads to now: the same, or one from its beginning."""
    fresh = _try_open(path)
    if fresh is None:
        return file
    if file is not None and os.path.sameopenfile(file, fresh):
        os.close(fresh)
        if os.fstat(file).st_size < os.lseek(file, 0, os.SEEK_CUR):
            os.lseek(file, 0, os.SEEK_SET)  # it was truncated
        return file
    if file is not None:
        os.close(file)
    return fresh


def _try_open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
