"""Writes logs line by line, in the format of tetrad or not, and reads them."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime
from typing import Any

from tetrad.cli.log_reader import LogFilter, read

START = 1795349914
"""The time of line 0, in seconds since 1970."""

JUNK = [
    b"",
    b" ",
    b"timestamp=2026-11-22T16:18:34Z level=info",
    b"timestamp=yesterday level=info event=client.connected",
    b"level=info event=client.connected",
    b"2026-11-22T16:18:34Z info client.connected",
    b"2026-11-22T16:18:34Z [info     ]",
    b"2026-11-22T16:18:34Z [info     ] client.connected torn",
    b"a=[" * 20_000,
    b'{"timestamp":"2026-11-22T16:18:34.00',
    b'{"level":"info","event":"x"}',
    b'{"timestamp":"2026-11-22T16:18:34Z","event":"x"}',
    b'{"timestamp":"2026-11-22T16:18:34Z","level":"info"}',
    b'{"timestamp":"2026-11-22T16:18:34Z","level":[],"event":"x"}',
    b'{"timestamp":"2026-11-22T16:18:34Z","level":"info","event":{}}',
    b'{"timestamp":"2026-11-22T16:18:34Z","level":null,"event":"x"}',
    b'{"timestamp":"yesterday","level":"info","event":"x"}',
    b'{"timestamp":5,"level":"info","event":"x"}',
    b'["timestamp"]',
    b'"timestamp"',
    b"null",
    b"5" * 5000,
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b"\x00" * 64,
    b"\xff\xfe{\x00}\x00",
    bytes(set(range(256)) - {0x0A}),
    "Grüße, 東京".encode(),
    b"carriage\rreturns\r",
]
"""Lines that are not events of ours."""


def line(number: int, **fields: object) -> bytes:
    """Return the line of an event; `number` is its time in seconds after line 0."""
    stamp = f"{datetime.fromtimestamp(START + number, UTC):%Y-%m-%dT%H:%M:%S}.000000Z"
    head = {"timestamp": stamp, "level": "info", "event": "client.command"}
    return json.dumps({**head, "number": number, **fields}).encode()


def write(path: str, *lines: bytes, age: int = 0, mode: str = "ab") -> None:
    """Write lines to a file, compressed if it is named so; `age` is in seconds."""
    data = b"".join(one + b"\n" for one in lines)
    with open(path, mode) as file:
        file.write(gzip.compress(data) if path.endswith(".gz") else data)
    if age:
        os.utime(path, (START - age, START - age))


def shown(path: str, count: int | None = None, **wanted: Any) -> list[bytes]:  # noqa: ANN401
    """Return the lines that are read."""
    return list(read(path, LogFilter(**wanted), count, following=False))
