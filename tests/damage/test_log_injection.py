"""Forgery: whatever bytes a client sends, each event is one line, and no line is theirs."""

from __future__ import annotations

import ast
import collections
import json
import re
from typing import TYPE_CHECKING

import pytest

from damage.log_accounting import OF_A_LIFE

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Figure, MakeDaemon
    from daemons import Daemon

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
"""All bytes alone and between others, and what readers of lines trip over."""

CLIENT = {"timestamp", "level", "event", "pid", "client", "connection", "service", "listener"}
ENDING = {"reason", "duration", "bytes_in", "bytes_out", "commands"}
KEYS = {
    "client.connected": CLIENT,
    "client.invalid": CLIENT | {"command"},
    "client.disconnected": CLIENT | ENDING,
}
"""The fields that a line of an event has: no more, and no fewer."""

DOUBLE = r'"(?:[^"\\]|\\.)*"'
SINGLE = r"'(?:[^'\\]|\\.)*'"
LOGFMT_PAIR = re.compile(rf'(\w+)=(?:({DOUBLE})|([^ ="]*))(?: |$)')
CONSOLE_PAIR = re.compile(rf"(\w+)=(?:({DOUBLE}|{SINGLE})|([^ =\"']*))(?: |$)")
"""A key, and its value: with quotes, or without."""

CONSOLE = re.compile(r"(\S+Z) \[(\w+) *\] (\S+) +(.*)")


def shown(data: bytes) -> str:
    r"""Return what the log shows of an invalid command: ASCII as it is, the rest as ``\xNN``."""
    word = re.split(rb"[\r\n]", data.lstrip(b"\r\n \t\0")[:4])[0]
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in word)


def pairs_of(text: str, pair: re.Pattern[str]) -> Fields:
    """Read key=value pairs, which must be all that there is."""
    assert "".join(match.group() for match in pair.finditer(text)) == text, text
    pairs = pair.findall(text)
    fields = {key: ast.literal_eval(quoted) if quoted else bare for key, quoted, bare in pairs}
    assert len(fields) == len(pairs), text
    return fields


def read_logfmt(line: str) -> Fields:
    """Read a line of the format logfmt."""
    return pairs_of(line, LOGFMT_PAIR)


def read_json(line: str) -> Fields:
    """Read a line of the format json."""
    fields: Fields = json.loads(line)
    return fields


def read_console(line: str) -> Fields:
    """Read a line of the format console."""
    match = CONSOLE.fullmatch(line)
    assert match is not None, line
    stamp, level, event, rest = match.groups()
    return {"timestamp": stamp, "level": level, "event": event, **pairs_of(rest, CONSOLE_PAIR)}


READERS = {"json": read_json, "logfmt": read_logfmt, "console": read_console}


def send_all(served: Daemon) -> collections.Counter[tuple[str, str]]:
    """Send every forgery in a session of its own; return clients and what is to be seen of them."""
    sent: collections.Counter[tuple[str, str]] = collections.Counter()
    for data in FORGERIES:
        client = served.connect()
        client.send(data)
        client.end()
        assert client.read_all() == b""
        client.close()
        sent[client.name, shown(data)] += 1
    return sent


def lines_of(served: Daemon) -> list[str]:
    """Return the log's lines, which must be whole and of printable ASCII."""
    with open(served.log_file, "rb") as file:
        text = file.read()
    assert not set(text) - set(range(32, 127)) - {10}
    assert text.endswith(b"\n")
    return text.decode().splitlines()


@pytest.mark.parametrize(("style", "read"), READERS.items())
def test_no_byte_forges_a_line(
    daemon: MakeDaemon, style: str, read: Callable[[str], Fields], figure: Figure
) -> None:
    """A line for each event, with that event's fields, and the command as it was sent."""
    served = daemon(log={"format": style})
    sent = send_all(served)
    served.stop()
    told = [read(line) for line in lines_of(served)]
    ours = [fields for fields in told if fields["event"] in KEYS]
    assert all(fields.keys() == KEYS[fields["event"]] for fields in ours)
    seen = collections.Counter(
        (fields["client"], fields["command"]) for fields in ours if "command" in fields
    )
    said_something = collections.Counter({one: count for one, count in sent.items() if one[1]})
    assert seen == said_something
    assert len(told) == OF_A_LIFE + 2 * len(FORGERIES) + said_something.total()
    figure(f"{len(FORGERIES)} forgeries, {len(told)} lines")
