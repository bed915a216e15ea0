"""Nonsense in the log, in the pidfile, and in the environment."""

from __future__ import annotations

import gzip
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from processes import run
from tetrad.cli import log_reader
from tetrad.launch import socket_activation
from tetrad.system.sd_notify import Notifier

from .fuzzing import misshapen, patience, seeded, spoilt, tetrad

if TYPE_CHECKING:
    import random

    from conftest import Figure, MakeDaemon

LONG = [pytest.mark.long, pytest.mark.timeout(600)]

CHOICES = (
    ("-n", "7"),
    ("--client", "127.0.0.0/8"),
    ("--client", "::/0"),
    ("--connection", "1f-1"),
    ("--event", "client.*"),
    ("--level", "warning"),
    ("--since", "3650d"),
)
"""What lines may be asked for."""


@pytest.fixture
def lines(daemon: MakeDaemon) -> list[bytes]:
    """Return the lines of a log."""
    served = daemon(access={"deny": ["127.0.0.9"]})
    for words in (b"timetime", b"help\n", b"\x1b[2J\xff", b"quit"):
        client = served.connect()
        client.send(words)
        client.end()
        client.read_all()
    assert served.connect(source="127.0.0.9").is_refused()
    served.wait_for("client.disconnected", count=4)
    served.stop()
    with open(served.log_file, "rb") as file:
        return file.read().splitlines()


def a_log(chance: random.Random, lines: list[bytes]) -> bytes:
    """Return a log of which something is wrong."""
    some = [chance.choice(lines) for _ in range(chance.randint(1, 6))]
    if chance.random() < 1 / 2:
        at = chance.randrange(len(some))
        some[at] = json.dumps(misshapen(chance, json.loads(some[at]))).encode()
    data = b"\n".join(some) + b"\n"
    return data if chance.random() < 1 / 4 else spoilt(chance, data, lines)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=LONG)])
def test_a_spoilt_log_is_shown_as_far_as_it_can_be(
    lines: list[bytes],
    prepared: MakeDaemon,
    capsysbinary: pytest.CaptureFixture[bytes],
    figure: Figure,
    count: int,
) -> None:
    """Whatever the file has, and those that were rotated away: lines, and never a complaint."""
    chance, asked = seeded(figure), prepared(log={"file": "spoilt.log"})
    log = os.path.join(asked.folder, "spoilt.log")
    with patience() as begin:
        for _ in range(count):
            data, older = a_log(chance, lines), a_log(chance, lines)
            packed = gzip.compress(older, 1)
            write(log, data)
            write(f"{log}.1", older)
            write(f"{log}.2.gz", spoilt(chance, packed, [packed]))
            choices = chance.sample(CHOICES, chance.randrange(3))
            wanted = [word for choice in choices for word in choice]
            begin()
            ran = tetrad(capsysbinary, "logs", "-c", asked.file, *wanted)
            assert (ran.status, ran.err) == (0, ""), (data, older, wanted)
            for line in data.split(b"\n"):
                shown = log_reader.render(line, terminal=True, colour=False).decode()
                assert shown.isprintable(), line


def write(path: str, data: bytes) -> None:
    """Write a file."""
    with open(path, "wb") as file:
        file.write(data)


@pytest.mark.parametrize("depth", range(100, 1100, 100))
@pytest.mark.parametrize("deep", ["[%s]", '{"x":%s}'])
def test_a_field_may_be_nested_deeply(depth: int, deep: str) -> None:
    """However deep a field is, its line is shown, if need be as it is."""
    value = "1"
    for _ in range(depth):
        value = deep % value
    line = b'{"timestamp":"2026-11-22T16:18:34Z","level":"info","event":"x","y":%b}'
    assert log_reader.render(line % value.encode(), terminal=True, colour=False)


PIDFILES = (b"4711\n", b"", b"1\n", b"\0\0\0\0\n", b"-1\n", b"dear diary,\n" * 9)


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=LONG)])
def test_a_spoilt_pidfile_is_no_daemon(
    prepared: MakeDaemon, capsysbinary: pytest.CaptureFixture[bytes], figure: Figure, count: int
) -> None:
    """Whatever a pidfile says, its lock does not: nothing runs, and there is nothing to stop."""
    chance, asked = seeded(figure), prepared()
    with patience() as begin:
        for _ in range(count):
            content = spoilt(chance, chance.choice(PIDFILES), PIDFILES)
            write(asked.pidfile, content)
            begin()
            assert tetrad(capsysbinary, "status", "-c", asked.file).status in {1, 3, 4}, content
            stopped = tetrad(capsysbinary, "stop", "-c", asked.file)
            assert stopped.status == 0 or "no pidfile" in stopped.err, content
            with open(asked.pidfile, "rb") as file:
                assert file.read() == content


@pytest.mark.parametrize("count", [5, pytest.param(40, marks=LONG)])
def test_a_start_over_a_spoilt_pidfile(prepared: MakeDaemon, figure: Figure, count: int) -> None:
    """A start takes a pidfile over, or leaves alone what is none, and says so."""
    chance, asked = seeded(figure), prepared()
    for _ in range(count):
        content = spoilt(chance, chance.choice(PIDFILES), PIDFILES)
        write(asked.pidfile, content)
        ran = asked.tetrad("start")
        if ran.status == 0:
            asked.adopt(ran.out)
            asked.stop()
        else:
            assert "no pidfile" in ran.err, content
            with open(asked.pidfile, "rb") as file:
                assert file.read() == content


def an_environment(chance: random.Random, pid: int) -> dict[str, str]:
    """Return what a service manager might have said, but for something."""
    said = {
        "LISTEN_PID": str(pid),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "listen[0]:x",
        "WATCHDOG_PID": str(pid),
        "WATCHDOG_USEC": "30000000",
        "NOTIFY_SOCKET": chance.choice(("/run/systemd/notify", "@abstract")),
    }
    corpus = [value.encode() for value in said.values()]
    for name in chance.sample(sorted(said), chance.randint(1, 3)):
        value = spoilt(chance, said[name].encode(), corpus).replace(b"\0", b"")
        said[name] = os.fsdecode(value)
    return {name: value for name, value in said.items() if chance.random() < 9 / 10}


@pytest.mark.parametrize("count", [5000, pytest.param(200_000, marks=LONG)])
def test_what_no_manager_would_say_is_taken_for_nothing(figure: Figure, count: int) -> None:
    """Numbers that are none, or too large for anything, are those of nobody."""
    chance = seeded(figure)
    with patience() as begin:
        for number in range(count):
            said = an_environment(chance, 4711)
            if not number % 256:
                begin()
            taken = socket_activation.take(dict(said), 4711)
            assert len(taken.sockets) <= 1 << 16, said
            assert taken.watchdog is None or 0 < taken.watchdog < 1 << 45, said
            Notifier(taken.notify).watchdog()


@pytest.mark.parametrize("count", [8, pytest.param(60, marks=LONG)])
def test_a_start_among_nonsense_in_the_environment(
    prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """A daemon starts and serves, or a line says why not."""
    chance, asked = seeded(figure), prepared()
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    started = 0
    for _ in range(count):
        said = an_environment(chance, 4711)
        script = 'test -z "$LISTEN_PID" || export LISTEN_PID=$$; exec "$@"'
        ran = run(["/bin/sh", "-c", script, "sh", *command], asked.environment | said)
        if ran.status == 0:
            started += 1
            asked.adopt(ran.out)
            asked.served().quit()
            asked.stop()
        else:
            assert ran.err.count("\n") == 1, (said, ran.err)
            assert ran.err.startswith("tetrad: "), (said, ran.err)
    figure(f"{started} of {count} started")
