"""Log injection: whatever bytes a client sends, each event is one line with its own fields only."""

from __future__ import annotations

import ast
import collections
import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.log_accounting import EVENTS_PER_DAEMON

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

    Fields = dict[str, str]

BYTES = [bytes([byte]) for byte in range(256)]

FORGERIES = [
    *BYTES,
    *(b"x" + byte + b"yz" for byte in BYTES),
    b'"},{',
    b'"}\n{"event":"server.stopped"}\n',
    b'\\"},',
    b'\\" a',
    b'\\"a=',
    b'" a=',
    b"a=b c",
    b"' a=",
    b"\\' a",
    b"\\\\\\\\",
    b"\\x0a",
    b"\\n\\n",
    b"\\u00",
    b"%s%n",
    b"x\nlevel=error event=server.failed\n",
    b"x\r\n",
    b"\x1b[2J",
    b"\x1b]0;",
    b"\x9b2Jx",
    b"\xc2\x9b2J",
    b"\xe2\x80\xa8",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80x",
    b"\x00\x01\x02\x03",
    b"\xff\xff\xff\x7f",
]
"""Every byte alone and between others, and sequences that confuse log parsers."""

CLIENT = {"timestamp", "level", "event", "pid", "client", "connection", "service", "listener"}
ENDING = {"reason", "duration", "bytes_in", "bytes_out", "commands"}
KEYS = {
    "client.connected": CLIENT,
    "client.invalid": CLIENT | {"command"},
    "client.disconnected": CLIENT | ENDING,
}
"""The exact fields of each event."""

DOUBLE = r'"(?:[^"\\]|\\.)*"'
SINGLE = r"'(?:[^'\\]|\\.)*'"
LOGFMT_PAIR = re.compile(rf'(\w+)=(?:({DOUBLE})|([^ ="]*))(?: |$)')
CONSOLE_PAIR = re.compile(rf"(\w+)=(?:({DOUBLE}|{SINGLE})|([^ =\"']*))(?: |$)")
"""A key and its value, quoted or not."""

CONSOLE = re.compile(r"(\S+Z) \[(\w+) *\] (\S+) +(.*)")


def shown(data: bytes) -> str:
    r"""Return how the log shows an invalid command: printable ASCII, other bytes as ``\xNN``."""
    word = re.split(rb"[\r\n]", data.lstrip(b"\r\n \t\0")[:4])[0]
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in word)


def pairs_of(text: str, pair: re.Pattern[str]) -> Fields:
    """Parse key=value pairs; the text must contain nothing else."""
    assert "".join(match.group() for match in pair.finditer(text)) == text, text
    pairs = pair.findall(text)
    fields = {key: ast.literal_eval(quoted) if quoted else bare for key, quoted, bare in pairs}
    assert len(fields) == len(pairs), text
    return fields


def read_logfmt(line: str) -> Fields:
    """Parse a line of the format logfmt."""
    return pairs_of(line, LOGFMT_PAIR)


def read_json(line: str) -> Fields:
    """Parse a line of the format json."""
    fields: Fields = json.loads(line)
    return fields


def read_console(line: str) -> Fields:
    """Parse a line of the format console."""
    match = CONSOLE.fullmatch(line)
    assert match is not None, line
    stamp, level, event, rest = match.groups()
    return {"timestamp": stamp, "level": level, "event": event, **pairs_of(rest, CONSOLE_PAIR)}


READERS = {"json": read_json, "logfmt": read_logfmt, "console": read_console}


def send_all(served: Daemon) -> collections.Counter[tuple[str, str]]:
    """Send each forgery in a session of its own; return the clients and their expected commands."""
    sent: collections.Counter[tuple[str, str]] = collections.Counter()
    for data in FORGERIES:
        client = served.connect()
        client.send(data)
        client.half_close()
        assert client.read_all() == b""
        client.close()
        sent[client.name, shown(data)] += 1
    return sent


def lines_of(served: Daemon) -> list[str]:
    """Return the lines of the log, which must be complete and printable ASCII."""
    with open(served.log_file, "rb") as file:
        text = file.read()
    assert not set(text) - set(range(32, 127)) - {10}
    assert text.endswith(b"\n")
    return text.decode().splitlines()


@pytest.mark.parametrize(("style", "read"), READERS.items())
def test_no_client_input_forges_a_log_line(
    daemon: MakeDaemon, style: str, read: Callable[[str], Fields], figure: Figure
) -> None:
    """One line for each event, with its fields, and the command as it was sent."""
    served = daemon(log={"format": style})
    sent = send_all(served)
    served.stop()
    parsed = [read(line) for line in lines_of(served)]
    ours = [fields for fields in parsed if fields["event"] in KEYS]
    assert all(fields.keys() == KEYS[fields["event"]] for fields in ours)
    seen = collections.Counter(
        (fields["client"], fields["command"]) for fields in ours if "command" in fields
    )
    non_empty = collections.Counter({one: count for one, count in sent.items() if one[1]})
    assert seen == non_empty
    assert len(parsed) == EVENTS_PER_DAEMON + 2 * len(FORGERIES) + non_empty.total()
    figure(f"{len(FORGERIES)} forgeries, {len(parsed)} lines")
