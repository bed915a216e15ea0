"""The lines of a daemon's JSON log, each parsed once however often a test looks."""

from __future__ import annotations

import os
from typing import Any

import msgspec

Event = dict[str, Any]


class LogLines:
    """The complete lines of the log file at a path; empty while there is none.

    A file that was replaced or truncated is read from its start, also if it has grown since then.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: list[Event] = []
        self._first = 0
        self._inode = 0
        self._offset = 0
        self._last = b""
        """The last line read: if the file has another one there, it was truncated."""

    def find(self, event: str | None = None, **fields: object) -> list[Event]:
        """Return the lines, or those of one event with these fields."""
        self._read()
        wanted = fields | ({} if event is None else {"event": event})
        return [line for line in self._lines[self._first :] if _has(line, wanted)]

    def hide(self) -> None:
        """Leave out of `find` all lines until now."""
        self._read()
        self._first = len(self._lines)

    def show(self) -> None:
        """Let `find` return all lines again."""
        self._first = 0

    def _read(self) -> None:
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            self._forget()
            return
        with file:
            status = os.fstat(file.fileno())
            file.seek(self._offset - len(self._last))
            if status.st_ino != self._inode or file.read(len(self._last)) != self._last:
                self._forget()
                self._inode = status.st_ino
                file.seek(0)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        if complete:
            lines = complete.splitlines(keepends=True)
            self._offset += len(complete)
            self._last = lines[-1]
            self._lines += map(msgspec.json.decode, lines)

    def _forget(self) -> None:
        self._lines.clear()
        self._inode = self._offset = self._first = 0
        self._last = b""


def _has(line: Event, wanted: dict[str, object]) -> bool:
    return all(key in line and line[key] == value for key, value in wanted.items())
