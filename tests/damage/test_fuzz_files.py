"""Invalid content in logs, pidfiles and the environment."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.fuzzing import mutated, mutated_tree, run_in_process, seeded_random, time_limit
from tests.support.processes import run
from tetrad.cli import logs
from tetrad.launch import socket_activation
from tetrad.system.sd_notify import Notifier

if TYPE_CHECKING:
    import random

    from tests.support.fixtures import Figure, MakeDaemon

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
"""Options of `tetrad logs`."""

WARNING = r"(tetrad: warning: not read: mutated\.log\..*\n)?"
"""What it prints about a file that it cannot read."""


@pytest.fixture
def lines(daemon: MakeDaemon) -> list[bytes]:
    """Return the lines of a real log."""
    served = daemon(access={"deny": ["127.0.0.9"]})
    for words in (b"timetime", b"help\n", b"\x1b[2J\xff", b"quit"):
        client = served.connect()
        client.send(words)
        client.half_close()
        client.read_all()
    assert served.connect(source="127.0.0.9").is_refused()
    served.wait_for("client.disconnected", count=4)
    served.stop()
    with open(served.log_file, "rb") as file:
        return file.read().splitlines()


def a_log(rng: random.Random, lines: list[bytes]) -> bytes:
    """Return a log with errors in it."""
    some = [rng.choice(lines) for _ in range(rng.randint(1, 6))]
    if rng.random() < 1 / 2:
        at = rng.randrange(len(some))
        some[at] = json.dumps(mutated_tree(rng, json.loads(some[at]))).encode()
    data = b"\n".join(some) + b"\n"
    return data if rng.random() < 1 / 4 else mutated(rng, data, lines)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=LONG)])
def test_tetrad_logs_shows_a_damaged_log(
    lines: list[bytes],
    prepared: MakeDaemon,
    capsysbinary: pytest.CaptureFixture[bytes],
    figure: Figure,
    count: int,
) -> None:
    """Whatever the log and its rotated files contain, `tetrad logs` prints lines and no error."""
    rng, asked = seeded_random(figure), prepared(log={"file": "mutated.log"})
    log = os.path.join(asked.folder, "mutated.log")
    with time_limit() as begin:
        for _ in range(count):
            data, older = a_log(rng, lines), a_log(rng, lines)
            packed = gzip.compress(older, 1)
            write(log, data)
            write(f"{log}.1", older)
            write(f"{log}.2.gz", mutated(rng, packed, [packed]))
            choices = rng.sample(CHOICES, rng.randrange(3))
            wanted = [word for choice in choices for word in choice]
            begin()
            ran = run_in_process(capsysbinary, "logs", "-c", asked.file, *wanted)
            assert ran.status == 0, (data, older, wanted)
            assert re.fullmatch(WARNING, ran.err), (data, older, wanted)
            for line in data.split(b"\n"):
                shown = logs.render(line, terminal=True, colour=False).decode()
                assert shown.isprintable(), line


def write(path: str, data: bytes) -> None:
    """Write a file."""
    with open(path, "wb") as file:
        file.write(data)


@pytest.mark.parametrize("depth", range(100, 1100, 100))
@pytest.mark.parametrize("deep", ["[%s]", '{"x":%s}'])
def test_a_deeply_nested_field_is_shown(depth: int, deep: str) -> None:
    """However deep a field is, its line is shown, if necessary unformatted."""
    value = "1"
    for _ in range(depth):
        value = deep % value
    line = b'{"timestamp":"2026-11-22T16:18:34Z","level":"info","event":"x","y":%b}'
    assert logs.render(line % value.encode(), terminal=True, colour=False)


PIDFILES = (b"4711\n", b"", b"1\n", b"\0\0\0\0\n", b"-1\n", b"dear diary,\n" * 9)


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=LONG)])
def test_a_damaged_pidfile_does_not_count_as_a_running_daemon(
    prepared: MakeDaemon, capsysbinary: pytest.CaptureFixture[bytes], figure: Figure, count: int
) -> None:
    """Only the lock counts: without it nothing runs, and there is nothing to stop."""
    rng, asked = seeded_random(figure), prepared()
    with time_limit() as begin:
        for _ in range(count):
            content = mutated(rng, rng.choice(PIDFILES), PIDFILES)
            write(asked.pidfile, content)
            begin()
            assert run_in_process(capsysbinary, "status", "-c", asked.file).status in {1, 3, 4}, (
                content
            )
            stopped = run_in_process(capsysbinary, "stop", "-c", asked.file)
            assert stopped.status == 0 or "is not a pidfile; not modified" in stopped.err, content
            with open(asked.pidfile, "rb") as file:
                assert file.read() == content


@pytest.mark.parametrize("count", [5, pytest.param(40, marks=LONG)])
def test_a_start_with_a_damaged_pidfile(prepared: MakeDaemon, figure: Figure, count: int) -> None:
    """A start reuses a damaged pidfile, or refuses a file that is not a pidfile."""
    rng, asked = seeded_random(figure), prepared()
    for _ in range(count):
        content = mutated(rng, rng.choice(PIDFILES), PIDFILES)
        write(asked.pidfile, content)
        ran = asked.tetrad("start")
        if ran.status == 0:
            asked.adopt(ran.out)
            asked.stop()
        else:
            assert "is not a pidfile; not modified" in ran.err, content
            with open(asked.pidfile, "rb") as file:
                assert file.read() == content


def an_environment(rng: random.Random, pid: int) -> dict[str, str]:
    """Return a service manager's environment variables with errors in them."""
    variables = {
        "LISTEN_PID": str(pid),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "listen[0]:x",
        "WATCHDOG_PID": str(pid),
        "WATCHDOG_USEC": "30000000",
        "NOTIFY_SOCKET": rng.choice(("/run/systemd/notify", "@abstract")),
    }
    corpus = [value.encode() for value in variables.values()]
    for name in rng.sample(sorted(variables), rng.randint(1, 3)):
        value = mutated(rng, variables[name].encode(), corpus).replace(b"\0", b"")
        variables[name] = os.fsdecode(value)
    return {name: value for name, value in variables.items() if rng.random() < 9 / 10}


@pytest.mark.parametrize("count", [5000, pytest.param(200_000, marks=LONG)])
def test_invalid_service_manager_variables_are_ignored(figure: Figure, count: int) -> None:
    """Values that are not numbers, or too large, are ignored."""
    rng = seeded_random(figure)
    with time_limit() as begin:
        for number in range(count):
            variables = an_environment(rng, 4711)
            if not number % 256:
                begin()
            taken = socket_activation.pop_environment(dict(variables), 4711)
            assert len(taken.sockets) <= 1 << 16, variables
            assert taken.watchdog is None or 0 < taken.watchdog < 1 << 45, variables
            Notifier(taken.notify).watchdog()


@pytest.mark.parametrize("count", [8, pytest.param(60, marks=LONG)])
def test_a_start_with_invalid_service_manager_variables(
    prepared: MakeDaemon, figure: Figure, count: int
) -> None:
    """The daemon starts and serves, or prints one error line."""
    rng, asked = seeded_random(figure), prepared()
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    started = 0
    for _ in range(count):
        variables = an_environment(rng, 4711)
        script = 'test -z "$LISTEN_PID" || export LISTEN_PID=$$; exec "$@"'
        ran = run(["/bin/sh", "-c", script, "sh", *command], asked.environment | variables)
        if ran.status == 0:
            started += 1
            asked.adopt(ran.out)
            asked.served().quit()
            asked.stop()
        else:
            assert ran.err.count("\n") == 1, (variables, ran.err)
            assert ran.err.startswith("tetrad: "), (variables, ran.err)
    figure(f"{started} of {count} started")
