"""`tetrad client`: the two interactive dialogs, and words on the command line."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import TIMEOUT_SECONDS, assert_no_traceback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

TIME = ANSWER.pattern.decode()
PROMPT = "CLIENT >> Enter command time or quit : "


class Terminal:
    """A `tetrad client` on a pseudo-terminal."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        self._fd, theirs = pty.openpty()
        without_echo(theirs)
        command = [sys.executable, "-m", "tetrad", "client", *arguments]
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=daemon.environment
        )
        os.close(theirs)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Wait until the output matches a pattern."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not re.search(text, self.shown):
            assert time.monotonic() < deadline, f"never shown: {text}; but: {self.shown}"
            assert self._read(), f"never shown: {text}; but: {self.shown}"

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._fd, text.encode() + b"\n")

    def end_input(self) -> None:
        """Type Ctrl-D."""
        os.write(self._fd, b"\x04")

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self._process.send_signal(2)

    def finish(self) -> int:
        """Read the rest of the output; return the exit status."""
        while self._read():
            pass
        return self._process.wait(TIMEOUT_SECONDS)

    def _read(self) -> bool:
        """Read more output; return False at its end."""
        assert select.select([self._fd], [], [], TIMEOUT_SECONDS)[0], self.shown
        try:
            data = os.read(self._fd, 4096)
        except OSError:
            return False  # EIO: the client has closed the terminal
        self.shown += data.decode().replace("\r\n", "\n")
        return bool(data)

    def __enter__(self) -> Self:
        """Return the terminal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process and close the terminal."""
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
        assert_no_traceback(self.shown)


def without_echo(fd: int) -> None:
    """Turn off the echo of a terminal."""
    settings = termios.tcgetattr(fd)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSANOW, settings)


@contextlib.contextmanager
def at_terminal(daemon: Daemon, *arguments: str) -> Iterator[Terminal]:
    """Run an interactive client of a daemon."""
    with Terminal(daemon, "--port", str(daemon.port), *arguments) as terminal:
        yield terminal


def replies(daemon: Daemon, *words: str) -> list[str]:
    """Return the lines that the client prints for words."""
    ran = daemon.tetrad("client", "--port", str(daemon.port), *words)
    assert (ran.status, ran.err) == (0, "")
    return ran.out.splitlines()


def test_the_dialog_of_the_service_command(daemon: MakeDaemon) -> None:
    """The output is that of the time/quit client that tetrad reproduces."""
    served = daemon()
    with at_terminal(served) as terminal:
        for word in ("time", "help", "quit"):
            terminal.wait_for(re.escape(PROMPT) + "$")
            terminal.type(word)
        assert terminal.finish() == 0
    assert re.fullmatch(
        f"CLIENT >> socket connect to 127.0.0.1:{served.port}\n"
        f"{PROMPT}CLIENT >> Input command : time\n"
        f"CLIENT >> received data : {TIME}\n"
        f"{PROMPT}CLIENT >> Input command : help\n"
        f"{PROMPT}CLIENT >> Input command : quit\n",
        terminal.shown,
    )


def test_the_dialog_of_the_service_echo(daemon: MakeDaemon) -> None:
    """The output is that of the echo client that tetrad reproduces."""
    with at_terminal(
        daemon(listen=[{"port": 0, "service": "echo"}]), "--service", "echo"
    ) as terminal:
        terminal.type("hello, world")
        terminal.wait_for("Server: hello, world\n")
        terminal.type("grüße")
        terminal.wait_for("Server: grüße\n")
        terminal.type("END")
        assert terminal.finish() == 0
    assert terminal.shown.endswith("Server: END\nEND ^^\n")


def test_the_end_of_input_ends_the_dialog(daemon: MakeDaemon) -> None:
    """Ctrl-D ends the client with exit status 0."""
    with at_terminal(daemon()) as terminal:
        terminal.wait_for(re.escape(PROMPT))
        terminal.end_input()
        assert terminal.finish() == 0


def test_an_interrupt_ends_the_dialog(daemon: MakeDaemon) -> None:
    """Ctrl-C ends the client without a traceback."""
    with at_terminal(daemon()) as terminal:
        terminal.wait_for(re.escape(PROMPT))
        terminal.interrupt()
        assert terminal.finish() in {0, 130}


def test_a_closed_connection_is_reported(daemon: MakeDaemon) -> None:
    """After the daemon has stopped, the next line ends the dialog with a message."""
    served = daemon()
    with at_terminal(served) as terminal:
        terminal.wait_for(re.escape(PROMPT))
        served.wait_for("client.connected")
        served.stop()
        terminal.type("time")
        assert terminal.finish() in {0, 1}
    assert "closed" in terminal.shown or "reset" in terminal.shown or "broken" in terminal.shown


def test_words_are_sent_and_replies_printed(daemon: MakeDaemon) -> None:
    """Each reply is a line."""
    lines = replies(daemon(), "time", "time", "quit")
    assert len(lines) == 3
    assert all(re.fullmatch(TIME, line) for line in lines[:2])
    assert lines[2] == "quit"


def test_the_timeout_of_a_reply_is_an_option(daemon: MakeDaemon) -> None:
    """The program of a command may be slow."""
    served = daemon(commands={"slow": {"run": ["sh", "-c", "sleep 2.2; echo x"]}})
    assert replies(served, "--timeout", "1m", "slow") == ["x"]


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_words_are_sent_byte_for_byte(daemon: MakeDaemon, locale: dict[str, str]) -> None:
    """Words and lines that are not valid in the encoding are sent, and printed escaped."""
    served = daemon(listen=[{"port": 0, "service": "echo"}])
    command = [sys.executable, "-m", "tetrad", "client", "--service", "echo"]
    command += ["--port", str(served.port)]
    variables = served.environment | locale
    ran = subprocess.run([*command, b"\xff\xfe"], env=variables, capture_output=True, check=True)
    assert ran.stdout == b"\\xff\\xfe\n"
    typed = subprocess.run(
        command, env=variables, input=b"\xff\nEND\n", capture_output=True, check=True
    )
    assert typed.stdout.splitlines()[1:] == [b"Server: \\xff", b"Server: END", b"END ^^"]


@pytest.mark.parametrize("host", ["a" * 64, "..", "\udcff"])
def test_an_invalid_host_name_is_reported(daemon: MakeDaemon, host: str) -> None:
    """A name that no host can have is a failure in one line."""
    ran = daemon().tetrad("client", "--host", host, "time")
    assert ran.status == 1
    assert ran.err.endswith(": not a valid host name\n")


def test_words_are_echoed(daemon: MakeDaemon) -> None:
    """The service echo sends each word back."""
    served = daemon(listen=[{"port": 0, "service": "echo"}])
    assert replies(served, "--service", "echo", "a b", "grüße", "x" * 5000) == [
        "a b",
        "grüße",
        "x" * 5000,
    ]


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_a_host_may_be_ipv6_or_a_name(daemon: MakeDaemon, host: str) -> None:
    """--host accepts addresses and names."""
    served = daemon(listen=[{"address": "::", "port": 0}])
    assert replies(served, "--host", host, "quit") == ["quit"]


def test_a_host_may_be_a_unix_socket(daemon: MakeDaemon) -> None:
    """--host accepts `unix:` and a path, as in the log."""
    served = daemon(listen=[{"address": "unix:t.sock"}])
    ran = served.tetrad("client", "--host", f"unix:{served.folder}/t.sock", "quit")
    assert (ran.status, ran.out) == (0, "quit\n")


@pytest.mark.parametrize("words", [(), ("time",)])
def test_a_refused_connection_is_a_failure(daemon: MakeDaemon, words: tuple[str, ...]) -> None:
    """The exit status is 1, and the message has the address and the reason."""
    served = daemon()
    served.stop()
    ran = served.tetrad("client", "--port", str(served.port), *words)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"tetrad: 127.0.0.1:{served.port}: connection refused\n"


def test_an_unknown_host_name_is_a_failure(daemon: MakeDaemon) -> None:
    """The exit status is 1, and the message has the name."""
    ran = daemon().tetrad("client", "--host", "no.such.host.invalid", "time")
    assert ran.status == 1
    assert "no.such.host.invalid" in ran.err
