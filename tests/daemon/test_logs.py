"""`tetrad logs` as a command: filters, following, terminals and exit statuses."""

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

from tests.support.daemons import TIMEOUT_SECONDS, assert_no_traceback

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.daemons import Daemon, Ran
    from tests.support.fixtures import MakeDaemon

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ")

JUNK = b'\xff\x00binary\n\n{"torn": \nlevel=info event=client.connected\n'
"""Four lines that are not events of ours: binary, empty, incomplete, and in another format."""


def line(number: int, minutes_ago: int = 0, **fields: object) -> bytes:
    """Return the line of an event."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    head = {"timestamp": moment.isoformat(), "level": "info", "event": "client.command"}
    return json.dumps({**head, "number": number, **fields}).encode() + b"\n"


def write(daemon: Daemon, data: bytes, name: str = "tetrad.log") -> None:
    """Append to a file in the daemon's folder."""
    with open(os.path.join(daemon.folder, name), "ab") as file:
        file.write(data)


def numbers(text: str) -> list[int]:
    """Return the numbers in the lines that were printed."""
    return [int(number) for number in re.findall(r"number=(\d+)", text)]


def logs(daemon: Daemon, *arguments: str, **options: Any) -> Ran:  # noqa: ANN401
    """Show the log, which must succeed."""
    ran = daemon.tetrad("logs", *arguments, **options)
    assert (ran.status, ran.err) == (0, "")
    return ran


class Following:
    """A running `tetrad logs -f`."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        command = [sys.executable, "-m", "tetrad", "logs", "-f", *arguments, "-c", daemon.file]
        # The command itself must flush each line.
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
        """Return the next line that has this text, and skip the others."""
        while text not in (line := self.line()):
            pass
        return line

    def end(self) -> tuple[int, str]:
        """Send SIGINT; return the exit status and standard error."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=TIMEOUT_SECONDS)
        assert_no_traceback(err.decode())
        return self.process.returncode, err.decode()

    def _more(self) -> bytes:
        assert self.process.stdout
        fd = self.process.stdout.fileno()
        assert select.select([fd], [], [], TIMEOUT_SECONDS)[0], "no line comes"
        data = os.read(fd, 65536)
        assert data, "it has ended"
        return data


@contextlib.contextmanager
def following(daemon: Daemon, *arguments: str) -> Iterator[Following]:
    """Follow a log; check that an interrupt ends it without a message."""
    followed = Following(daemon, *arguments)
    try:
        yield followed
        assert followed.end() == (130, "")
    finally:
        followed.process.kill()
        followed.process.communicate()


def on_terminal(daemon: Daemon, **environment: str) -> str:
    """Return the output of `tetrad logs` on a terminal."""
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


@pytest.fixture(scope="module")
def busy(shared_daemon: MakeDaemon) -> Daemon:
    """Return a daemon after a valid session, an invalid command and a refused client."""
    served = shared_daemon(access={"deny": ["127.0.0.9"]})
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
    """Return the event of each line that was printed."""
    names = sorted({event["event"] for event in daemon.events()}, key=len, reverse=True)
    return [next(name for name in names if f" {name} " in one) for one in ran.out.splitlines()]


@pytest.mark.quick
def test_every_event_is_a_line_in_order(busy: Daemon) -> None:
    """Without filters every event of the log is printed with its local time and level."""
    ran = logs(busy)
    assert events_of(busy, ran) == [event["event"] for event in busy.events()]
    assert all(STAMP.match(one) for one in ran.out.splitlines())
    assert [one.split()[2] for one in ran.out.splitlines()] == [e["level"] for e in busy.events()]


def test_events_are_filtered_by_pattern(busy: Daemon) -> None:
    """--event accepts a name or a pattern."""
    assert events_of(busy, logs(busy, "--event", "client.refused")) == ["client.refused"]
    assert set(events_of(busy, logs(busy, "--event", "server.*"))) == {
        "server.started",
        "server.listening",
    }
    assert logs(busy, "--event", "nothing").out == ""


def test_events_are_filtered_by_level(busy: Daemon) -> None:
    """--level shows this level and higher ones."""
    warnings = logs(busy, "--level", "warning")
    assert sorted(events_of(busy, warnings)) == ["client.invalid", "client.refused"]
    assert logs(busy, "--level", "error").out == ""
    assert logs(busy, "--level", "debug").out == logs(busy).out


@pytest.mark.quick
def test_events_are_filtered_by_client(busy: Daemon) -> None:
    """--client accepts an address or a network."""
    assert events_of(busy, logs(busy, "--client", "127.0.0.9")) == ["client.refused"]
    served = re.compile(r" 127\.0\.0\.[23]:")
    lines = [one for one in logs(busy).out.splitlines() if served.search(one)]
    assert logs(busy, "--client", "127.0.0.2/31").out.splitlines() == lines
    assert len(lines) == 7


def test_events_are_filtered_by_session(busy: Daemon) -> None:
    """--connection shows one session from its beginning to its end."""
    connection = busy.events("client.invalid")[0]["connection"]
    assert events_of(busy, logs(busy, "--connection", connection)) == [
        "client.connected",
        "client.invalid",
        "client.disconnected",
    ]


def test_filters_are_combined(busy: Daemon) -> None:
    """An event must match all filters, and -n counts matching events."""
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
    """-n sets the number; --since without -n has no limit."""
    daemon = prepared()
    write(daemon, b"".join(map(line, range(30))))
    assert numbers(logs(daemon, *arguments).out) == [*range(first, 30)]


def test_since_shows_events_of_rotated_files(prepared: MakeDaemon) -> None:
    """--since reads rotated and compressed files as far back as necessary."""
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


def test_other_lines_are_not_changed(prepared: MakeDaemon, tmp_path: Path) -> None:
    """Lines that are not events pass all filters, byte for byte, if the output is a file."""
    daemon = prepared(log={"format": "console"})
    write(daemon, JUNK + line(1))
    with open(tmp_path / "out", "w+b") as out:
        logs(daemon, "--level", "error", stdout=out)
        out.seek(0)
        assert out.read() == JUNK


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


def test_a_missing_log_is_reported(prepared: MakeDaemon) -> None:
    """The message names the log."""
    daemon = prepared()
    ran = daemon.tetrad("logs")
    assert ran == (1, "", f"tetrad: {daemon.log_file}: no such file or directory\n")


def test_a_log_on_standard_error_cannot_be_shown(prepared: MakeDaemon) -> None:
    """The message has the reason."""
    ran = prepared(log={"file": None}).tetrad("logs")
    assert (ran.status, ran.out) == (1, "")
    assert "log.file is null" in ran.err


def test_a_log_without_read_permission_is_4(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """The log of another user gives exit status 4."""
    daemon = prepared(folder=nobodys_folder)
    write(daemon, line(1))
    os.chmod(daemon.log_file, 0)
    ran = daemon.tetrad("logs", user="nobody")
    assert ran == (4, "", f"tetrad: {daemon.log_file}: permission denied\n")


def test_output_that_cannot_be_written_is_no_internal_error(prepared: MakeDaemon) -> None:
    """A full disk is reported; a closed standard output has no traceback."""
    daemon = prepared()
    write(daemon, line(1))
    with open("/dev/full", "wb") as full:
        ran = daemon.tetrad("logs", stdout=full)
    assert (ran.status, ran.err) == (1, "tetrad: standard output: no space left on device\n")
    ran = daemon.tetrad("logs", preexec_fn=lambda: os.close(1))
    assert ran.status in {0, 1}


def test_a_closed_pipe_is_not_reported(prepared: MakeDaemon) -> None:
    """`tetrad logs | head -1` prints one line and no error."""
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
    """The level has a colour on a terminal, but not in a pipe or with NO_COLOR."""
    daemon = prepared()
    write(daemon, line(1, level="error"))
    assert " \x1b[31merror  \x1b[0m " in on_terminal(daemon)
    assert "\x1b" not in on_terminal(daemon, NO_COLOR="1")
    assert "\x1b" not in logs(daemon).out


def test_escape_sequences_do_not_reach_a_terminal(prepared: MakeDaemon) -> None:
    """Escape sequences in events and in other lines are escaped."""
    daemon = prepared(log={"format": "console"})
    write(daemon, line(1, command="\x1b[2J\n\x9b2J") + b"junk \x1b[2J\x07\n\xc2\x9b2J\n")
    text = on_terminal(daemon, NO_COLOR="1")
    assert re.search(r"command=\S*2J", text)
    assert "junk " in text
    assert all(one.isprintable() for one in text.split("\r\n"))
    assert len(text.split("\r\n")) == 4
    assert "\x1b" not in logs(daemon, "--event", "client.*", "-n", "9").out.splitlines()[0]


@pytest.mark.quick
def test_new_events_are_followed(shared_daemon: MakeDaemon) -> None:
    """Matching events are printed as they are written."""
    served = shared_daemon()
    name = served.served(source="127.0.0.2").name
    served.wait_for("client.command")
    with following(served, "-n", "1", "--client", "127.0.0.2") as followed:
        assert f"{name} command=time" in followed.line()
        served.served(source="127.0.0.3")
        name = served.served(source="127.0.0.2").name
        assert [name in followed.line() for _ in range(2)] == [True, True]


def test_following_begins_with_the_last_lines(prepared: MakeDaemon) -> None:
    """-n is the number of earlier lines that are printed first."""
    daemon = prepared()
    write(daemon, b"".join(map(line, range(9))))
    with following(daemon, "-n", "2") as followed:
        assert [followed.number(), followed.number()] == [7, 8]
        write(daemon, line(9))
        assert followed.number() == 9


def test_a_missing_log_is_followed(prepared: MakeDaemon) -> None:
    """Following that begins before the first start prints the first line."""
    daemon = prepared()
    with following(daemon, "-n", "9") as followed:
        daemon.start()
        followed.until("server.started")


def test_a_rotated_log_is_followed(daemon: MakeDaemon) -> None:
    """Every line is printed once when the log is renamed between connections."""
    served = daemon()
    with following(served, "-n", "1", "--event", "client.connected") as followed:
        served.served()
        followed.until("client.connected")
        for generation in range(1, 4):
            os.rename(served.log_file, f"{served.log_file}.{generation}")
            names = {served.served().name for _ in range(3)}
            assert {followed.line().split()[5] for _ in names} == names


def test_a_copied_and_truncated_log_is_followed(prepared: MakeDaemon) -> None:
    """The mode copytruncate of logrotate is supported."""
    daemon = prepared()
    write(daemon, line(0) + line(1))
    with following(daemon, "-n", "1") as followed:
        assert followed.number() == 1
        shutil.copy(daemon.log_file, f"{daemon.log_file}.1")
        os.truncate(daemon.log_file, 0)
        write(daemon, line(2))
        assert followed.number() == 2


def test_a_deleted_log_is_followed(daemon: MakeDaemon) -> None:
    """After the log was deleted, the file that the daemon creates is followed."""
    served = daemon()
    with following(served, "-n", "1") as followed:
        followed.line()
        os.unlink(served.log_file)
        name = served.served().name
        assert name in followed.until("client.connected")
        followed.until("client.command")


def test_a_restarted_daemon_is_followed(daemon: MakeDaemon) -> None:
    """The events of the stop and of the next start are printed."""
    served = daemon()
    with following(served, "-n", "1") as followed:
        served.stop()
        followed.until("server.stopped")
        served.start()
        followed.until("server.started")


def test_a_continuous_writer_is_followed_line_by_line(prepared: MakeDaemon) -> None:
    """Every line is printed once and complete, also at the begin of following."""
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
