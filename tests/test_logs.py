"""`tetrad logs`: filters, following, output to terminals, and how it ends."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from daemons import TIMEOUT_SECONDS, assert_no_traceback, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import MakeDaemon
    from daemons import Daemon, Ran

STAMP = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ")

JUNK = b'\xff\x00binary\n\n{"torn": \nlevel=info event=client.connected\n'
"""Four lines that are not events: binary, empty, incomplete, and of another format."""


def line(number: int, minutes_ago: int = 0, **fields: object) -> bytes:
    """Return the line of an event from some minutes ago."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    head = {"timestamp": moment.isoformat(), "level": "info", "event": "client.command"}
    return json.dumps({**head, "number": number, **fields}).encode() + b"\n"


def write(daemon: Daemon, data: bytes, name: str = "tetrad.log") -> None:
    """Append to a file in the daemon's folder."""
    with open(os.path.join(daemon.folder, name), "ab") as file:
        file.write(data)


def numbers(text: str) -> list[int]:
    """Return the numbers of the lines shown."""
    return [int(number) for number in re.findall(r"number=(\d+)", text)]


def logs(daemon: Daemon, *arguments: str, **options: Any) -> Ran:  # noqa: ANN401
    """Run `tetrad logs`, which must succeed."""
    ran = daemon.tetrad("logs", *arguments, **options)
    assert (ran.status, ran.err) == (0, "")
    return ran


class Following:
    """A running `tetrad logs -f`, read line by line."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        command = [sys.executable, "-m", "tetrad", "logs", "-f", *arguments, "-c", daemon.file]
        # Each line must be flushed.
        environment = {k: v for k, v in daemon.environment.items() if k != "PYTHONUNBUFFERED"}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._data = b""

    def line(self) -> str:
        """Return the next line; fail if none comes."""
        while b"\n" not in self._data:
            self._data += self._more()
        line, _, self._data = self._data.partition(b"\n")
        return line.decode()

    def number(self) -> int:
        """Return the number of the next line."""
        (number,) = numbers(self.line())
        return number

    def until(self, text: str) -> str:
        """Skip lines until one contains this text, and return it."""
        while text not in (line := self.line()):
            pass
        return line

    def end(self) -> tuple[int, str]:
        """Interrupt it with SIGINT; return its exit status and standard error."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=TIMEOUT_SECONDS)
        assert_no_traceback(err.decode())
        return self.process.returncode, err.decode()

    def _more(self) -> bytes:
        assert self.process.stdout
        fd = self.process.stdout.fileno()
        assert select.select([fd], [], [], TIMEOUT_SECONDS)[0], "no line comes"
        data = os.read(fd, 65536)
        assert data, "it has exited"
        return data


@contextlib.contextmanager
def following(daemon: Daemon, *arguments: str) -> Iterator[Following]:
    """Follow a log; it must end without an error."""
    followed = Following(daemon, *arguments)
    try:
        yield followed
        assert followed.end() == (130, "")
    finally:
        followed.process.kill()
        followed.process.communicate()


def on_terminal(daemon: Daemon, **environment: str) -> str:
    """Return what `tetrad logs` prints on a terminal."""
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "tetrad", "logs", "-c", daemon.file]
        process = subprocess.Popen(
            command, env={**daemon.environment, **environment}, stdout=theirs, stdin=theirs
        )
        os.close(theirs)
        text = b""
        with contextlib.suppress(OSError):  # EIO is a terminal's end of file
            while select.select([ours], [], [], TIMEOUT_SECONDS)[0]:
                text += os.read(ours, 65536)
        assert process.wait(TIMEOUT_SECONDS) == 0
    finally:
        os.close(ours)
    return text.decode()


@pytest.fixture
def busy(daemon: MakeDaemon) -> Daemon:
    """Return a daemon that has had a valid, an invalid and a refused client."""
    served = daemon(access={"deny": ["127.0.0.9"]})
    served.served(source="127.0.0.2").quit()
    invalid = served.connect(source="127.0.0.3")
    invalid.send(b"help")
    invalid.half_close()
    assert invalid.read_all() == b""
    assert served.connect(source="127.0.0.9").is_refused()
    served.wait_for("client.disconnected", count=2)
    served.wait_for("client.refused")
    return served


def events_of(daemon: Daemon, ran: Ran) -> list[str]:
    """Return the events shown; each line must be one."""
    names = sorted({event["event"] for event in daemon.events()}, key=len, reverse=True)
    return [next(name for name in names if f" {name} " in one) for one in ran.out.splitlines()]


def test_every_event_is_shown_in_order(busy: Daemon) -> None:
    """Without filters each line is shown with local time and level."""
    ran = logs(busy)
    assert events_of(busy, ran) == [event["event"] for event in busy.events()]
    assert all(STAMP.match(one) for one in ran.out.splitlines())
    assert [one.split()[2] for one in ran.out.splitlines()] == [e["level"] for e in busy.events()]


def test_event_filters_by_name_or_pattern(busy: Daemon) -> None:
    """As in `--event 'client.*'`."""
    assert events_of(busy, logs(busy, "--event", "client.refused")) == ["client.refused"]
    assert set(events_of(busy, logs(busy, "--event", "server.*"))) == {
        "server.started",
        "server.listening",
    }
    assert logs(busy, "--event", "nothing").out == ""


def test_level_filters_by_severity(busy: Daemon) -> None:
    """--level shows this level and higher ones."""
    warnings = logs(busy, "--level", "warning")
    assert sorted(events_of(busy, warnings)) == ["client.invalid", "client.refused"]
    assert logs(busy, "--level", "error").out == ""
    assert logs(busy, "--level", "debug").out == logs(busy).out


def test_client_filters_by_address_or_network(busy: Daemon) -> None:
    """Lines of other clients are not shown."""
    assert events_of(busy, logs(busy, "--client", "127.0.0.9")) == ["client.refused"]
    served = re.compile(r" 127\.0\.0\.[23]:")
    lines = [one for one in logs(busy).out.splitlines() if served.search(one)]
    assert logs(busy, "--client", "127.0.0.2/31").out.splitlines() == lines
    assert len(lines) == 7


def test_connection_filters_by_session(busy: Daemon) -> None:
    """--connection shows one session from begin to end."""
    connection = busy.events("client.invalid")[0]["connection"]
    assert events_of(busy, logs(busy, "--connection", connection)) == [
        "client.connected",
        "client.invalid",
        "client.disconnected",
    ]


def test_filters_are_combined(busy: Daemon) -> None:
    """All filters must match, and -n counts matching lines."""
    arguments = ("--client", "127.0.0.2", "--event", "client.*", "--since", "1h", "-n", "2")
    assert events_of(busy, logs(busy, *arguments)) == ["client.command", "client.disconnected"]


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ((), 10),
        (("-n", "0"), 30),
        (("-n", "3"), 27),
        (("--lines", "99"), 0),
        (("--since", "5m"), 0),
    ],
)
def test_twenty_lines_are_shown_by_default(
    prepared: MakeDaemon, arguments: tuple[str, ...], first: int
) -> None:
    """-n sets the number; --since alone shows all."""
    daemon = prepared()
    write(daemon, b"".join(map(line, range(30))))
    assert numbers(logs(daemon, *arguments).out) == [*range(first, 30)]


def test_since_reads_rotated_files(prepared: MakeDaemon) -> None:
    """It reads rotated and compressed files as far back as necessary."""
    daemon = prepared()
    write(daemon, gzip.compress(line(1, 90) + line(2, 50)), "tetrad.log.2.gz")
    write(daemon, line(3, 40) + line(4, 30), "tetrad.log.1")
    write(daemon, line(5, 20) + line(6, 1))
    for age, name in enumerate(("tetrad.log.1", "tetrad.log.2.gz"), 1):
        os.utime(os.path.join(daemon.folder, name), (age * -9000, age * -9000))
    assert numbers(logs(daemon, "--since", "10m").out) == [6]
    assert numbers(logs(daemon, "--since", "35m").out) == [4, 5, 6]
    assert numbers(logs(daemon, "--since", "1h").out) == [2, 3, 4, 5, 6]
    assert numbers(logs(daemon, "--since", "1d").out) == [1, 2, 3, 4, 5, 6]
    assert numbers(logs(daemon, "-n", "5").out) == [2, 3, 4, 5, 6]
    assert numbers(logs(daemon, "-n", "500").out) == [1, 2, 3, 4, 5, 6]


def test_lines_of_other_formats_are_passed_to_a_pipe(prepared: MakeDaemon, tmp_path: Path) -> None:
    """Whatever the filters are, byte for byte."""
    daemon = prepared(log={"format": "console"})
    write(daemon, JUNK + line(1))
    with open(tmp_path / "out", "w+b") as out:
        logs(daemon, "--level", "error", stdout=out)
        out.seek(0)
        assert out.read() == JUNK


@pytest.mark.parametrize("style", ["logfmt", "console"])
def test_other_log_formats_are_shown_unchanged(daemon: MakeDaemon, style: str) -> None:
    """`console` and `logfmt` lines are shown as written."""
    served = daemon(log={"format": style})
    served.served()

    def is_whole() -> bool:
        with open(served.log_file, encoding="ascii") as file:
            return "client.command" in file.read()

    until(is_whole, "a line in the log")
    with open(served.log_file, encoding="ascii") as file:
        assert logs(served, "--event", "nothing").out == file.read()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-n", "many"),
        ("-n", "-1"),
        ("--client", "localhost"),
        ("--level", "loud"),
        ("--since", "yesterday"),
        ("extra",),
    ],
)
def test_invalid_options_are_usage_errors(prepared: MakeDaemon, arguments: tuple[str, ...]) -> None:
    """The log is not read."""
    ran = prepared().tetrad("logs", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert "usage: tetrad" in ran.err


def test_a_missing_log_is_named(prepared: MakeDaemon) -> None:
    """The error has its path."""
    daemon = prepared()
    ran = daemon.tetrad("logs")
    assert ran == (1, "", f"tetrad: {daemon.log_file}: no such file or directory\n")


def test_a_log_on_standard_error_is_an_error(prepared: MakeDaemon) -> None:
    """The message says that the log is not a file."""
    ran = prepared(log={"file": None}).tetrad("logs")
    assert (ran.status, ran.out) == (1, "")
    assert "log.file is null" in ran.err


def test_an_unreadable_log_is_a_permission_problem(
    prepared: MakeDaemon, nobodys_folder: str
) -> None:
    """The exit status is 4."""
    daemon = prepared(folder=nobodys_folder)
    write(daemon, line(1))
    os.chmod(daemon.log_file, 0)
    ran = daemon.tetrad("logs", user="nobody")
    assert ran == (4, "", f"tetrad: {daemon.log_file}: permission denied\n")


def test_a_full_disk_and_a_closed_output_cause_no_traceback(prepared: MakeDaemon) -> None:
    """The first is an error, the second is not."""
    daemon = prepared()
    write(daemon, line(1))
    with open("/dev/full", "wb") as full:
        ran = daemon.tetrad("logs", stdout=full)
    assert (ran.status, ran.err) == (1, "tetrad: standard output: no space left on device\n")
    ran = daemon.tetrad("logs", preexec_fn=lambda: os.close(1))
    assert ran.status in {0, 1}


def test_a_closed_pipe_is_not_an_error(prepared: MakeDaemon) -> None:
    """`tetrad logs` into `head -1` prints one line, and no error."""
    daemon = prepared()
    write(daemon, b"".join(map(line, range(20_000))))
    command = f"{sys.executable} -m tetrad logs -n 20000 -c {daemon.file} | head -1"
    piped = subprocess.run(
        ["/bin/sh", "-c", command],
        env=daemon.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    assert (numbers(piped.stdout), piped.stderr) == ([0], "")


def test_colours_are_for_terminals(prepared: MakeDaemon) -> None:
    """A pipe, and a terminal with NO_COLOR, get no colours."""
    daemon = prepared()
    write(daemon, line(1, level="error"))
    assert " \x1b[31merror  \x1b[0m " in on_terminal(daemon)
    assert "\x1b" not in on_terminal(daemon, NO_COLOR="1")
    assert "\x1b" not in logs(daemon).out


def test_terminal_codes_in_lines_are_escaped(prepared: MakeDaemon) -> None:
    """In fields of events and in lines of other formats."""
    daemon = prepared(log={"format": "console"})
    write(daemon, line(1, command="\x1b[2J\n\x9b2J") + b"junk \x1b[2J\x07\n\xc2\x9b2J\n")
    text = on_terminal(daemon, NO_COLOR="1")
    assert re.search(r"command=\S*2J", text)
    assert "junk " in text
    assert all(one.isprintable() for one in text.split("\r\n"))
    assert len(text.split("\r\n")) == 4
    assert "\x1b" not in logs(daemon, "--event", "client.*", "-n", "9").out.splitlines()[0]


def test_new_events_are_followed(daemon: MakeDaemon) -> None:
    """Events that match the filters are shown as they are logged."""
    served = daemon()
    name = served.served(source="127.0.0.2").name
    served.wait_for("client.command")
    with following(served, "-n", "1", "--client", "127.0.0.2") as followed:
        assert f"{name} command=time" in followed.line()
        served.served(source="127.0.0.3")
        name = served.served(source="127.0.0.2").name
        assert [name in followed.line() for _ in range(2)] == [True, True]


def test_following_begins_with_the_last_lines(prepared: MakeDaemon) -> None:
    """-n sets how many."""
    daemon = prepared()
    write(daemon, b"".join(map(line, range(9))))
    with following(daemon, "-n", "2") as followed:
        assert [followed.number(), followed.number()] == [7, 8]
        write(daemon, line(9))
        assert followed.number() == 9


def test_a_future_log_is_followed(prepared: MakeDaemon) -> None:
    """Following may start before the daemon has started."""
    daemon = prepared()
    with following(daemon, "-n", "9") as followed:
        daemon.start()
        followed.until("server.started")


def test_a_rotated_log_is_followed(daemon: MakeDaemon) -> None:
    """Renaming under load loses no line and shows none twice."""
    served = daemon()
    with following(served, "-n", "1", "--event", "client.connected") as followed:
        served.served()
        followed.until("client.connected")
        for generation in range(1, 4):
            os.rename(served.log_file, f"{served.log_file}.{generation}")
            names = {served.served().name for _ in range(3)}
            assert {followed.line().split()[5] for _ in names} == names


def test_a_copied_and_truncated_log_is_followed(prepared: MakeDaemon) -> None:
    """As with logrotate's copytruncate."""
    daemon = prepared()
    write(daemon, line(0) + line(1))
    with following(daemon, "-n", "1") as followed:
        assert followed.number() == 1
        shutil.copy(daemon.log_file, f"{daemon.log_file}.1")
        os.truncate(daemon.log_file, 0)
        write(daemon, line(2))
        assert followed.number() == 2


def test_a_recreated_log_is_followed(daemon: MakeDaemon) -> None:
    """A deleted log is followed where the daemon creates it again."""
    served = daemon()
    with following(served, "-n", "1") as followed:
        followed.line()
        os.unlink(served.log_file)
        name = served.served().name
        assert name in followed.until("client.connected")
        followed.until("client.command")


def test_a_restarted_daemon_is_followed(daemon: MakeDaemon) -> None:
    """Its last and its first lines are in one stream."""
    served = daemon()
    with following(served, "-n", "1") as followed:
        served.stop()
        followed.until("server.stopped")
        served.start()
        followed.until("server.started")


def test_following_under_load_shows_every_line_once(prepared: MakeDaemon) -> None:
    """Between past and new lines none is missing, incomplete or repeated."""
    daemon = prepared(log={"format": "console"})
    write(daemon, line(0))
    writer = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "for n in range(1, 30001): os.write(fd, b'%s number=%d\\n' % (b'x' * 50, n))\n"
    )
    with (
        subprocess.Popen([sys.executable, "-c", writer, daemon.log_file]) as process,
        following(daemon, "-n", "30001") as followed,
    ):
        assert [followed.number() for _ in range(30001)] == [*range(30001)]
        assert process.wait(TIMEOUT_SECONDS) == 0
