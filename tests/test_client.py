"""`tetrad client`: the interactive client of the two original programs, and words as arguments."""

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

from clients import ANSWER
from processes import TIMEOUT_SECONDS, assert_no_traceback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import MakeDaemon
    from daemons import Daemon

TIME = ANSWER.pattern.decode()
PROMPT = "CLIENT >> Enter command time or quit : "


class Terminal:
    """A program on a pseudo-terminal."""

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
            return False  # EIO: no process has the terminal open any more
        self.shown += data.decode().replace("\r\n", "\n")
        return bool(data)

    def __enter__(self) -> Self:
        """Return the terminal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the program, and close the terminal."""
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
    """Run the interactive client with a daemon."""
    with Terminal(daemon, "--port", str(daemon.port), *arguments) as terminal:
        yield terminal


def answers_to(daemon: Daemon, *words: str) -> list[str]:
    """Return the lines that the client prints for these words."""
    ran = daemon.tetrad("client", "--port", str(daemon.port), *words)
    assert (ran.status, ran.err) == (0, "")
    return ran.out.splitlines()


def test_an_interactive_command_session(daemon: MakeDaemon) -> None:
    """The output is that of the first original program."""
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


def test_an_interactive_echo_session(daemon: MakeDaemon) -> None:
    """The output is that of the second original program."""
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


def test_ctrl_d_ends_the_session(daemon: MakeDaemon) -> None:
    """End of input is a normal end."""
    with at_terminal(daemon()) as terminal:
        terminal.wait_for(re.escape(PROMPT))
        terminal.end_input()
        assert terminal.finish() == 0


def test_ctrl_c_ends_the_session(daemon: MakeDaemon) -> None:
    """There is no traceback."""
    with at_terminal(daemon()) as terminal:
        terminal.wait_for(re.escape(PROMPT))
        terminal.interrupt()
        assert terminal.finish() in {0, 130}


def test_a_closed_connection_is_reported(daemon: MakeDaemon) -> None:
    """The client exits at the next input after the server has closed the connection."""
    served = daemon()
    with at_terminal(served) as terminal:
        terminal.wait_for(re.escape(PROMPT))
        served.wait_for("client.connected")
        served.stop()
        terminal.type("time")
        assert terminal.finish() in {0, 1}
    assert "closed" in terminal.shown or "reset" in terminal.shown or "broken" in terminal.shown


def test_words_are_sent_and_answers_printed(daemon: MakeDaemon) -> None:
    """Each answer is a line; a word without an answer has none."""
    lines = answers_to(daemon(), "time", "nope", "time", "quit")
    assert len(lines) == 3
    assert all(re.fullmatch(TIME, line) for line in lines[:2])
    assert lines[2] == "quit"


@pytest.mark.parametrize(("timeout", "answers"), [("100ms", []), ("1m", ["x"])])
def test_timeout_limits_the_wait_for_an_answer(
    daemon: MakeDaemon, timeout: str, answers: list[str]
) -> None:
    """A command of the operator may be slow."""
    served = daemon(commands={"slow": {"run": ["sh", "-c", "sleep 2.2; echo x"]}})
    assert answers_to(served, "--timeout", timeout, "slow") == answers


def test_words_after_quit_are_not_sent(daemon: MakeDaemon) -> None:
    """The server has closed the connection by then."""
    assert answers_to(daemon(), "quit", "time") == ["quit"]


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_bytes_are_sent_unchanged(daemon: MakeDaemon, locale: dict[str, str]) -> None:
    """Arguments and lines in no valid encoding are sent, and their answers shown escaped."""
    served = daemon(listen=[{"port": 0, "service": "echo"}])
    command = [sys.executable, "-m", "tetrad", "client", "--service", "echo"]
    command += ["--port", str(served.port)]
    variables = served.environment | locale
    from_arguments = subprocess.run(
        [*command, b"\xff\xfe"], env=variables, capture_output=True, check=True
    )
    assert from_arguments.stdout == b"\\xff\\xfe\n"
    from_input = subprocess.run(
        command, env=variables, input=b"\xff\nEND\n", capture_output=True, check=True
    )
    assert from_input.stdout.splitlines()[1:] == [b"Server: \\xff", b"Server: END", b"END ^^"]


@pytest.mark.parametrize("host", ["a" * 64, "..", "\udcff"])
def test_an_invalid_host_name_is_an_error(daemon: MakeDaemon, host: str) -> None:
    """The message is one line."""
    ran = daemon().tetrad("client", "--host", host, "time")
    assert ran.status == 1
    assert ran.err.endswith(": not the name of a host\n")


def test_words_are_echoed(daemon: MakeDaemon) -> None:
    """With the echo service each word comes back."""
    served = daemon(listen=[{"port": 0, "service": "echo"}])
    assert answers_to(served, "--service", "echo", "a b", "grüße", "x" * 5000) == [
        "a b",
        "grüße",
        "x" * 5000,
    ]


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_a_host_may_be_ipv6_or_a_name(daemon: MakeDaemon, host: str) -> None:
    """--host takes an address or a name."""
    served = daemon(listen=[{"address": "::", "port": 0}])
    assert answers_to(served, "--host", host, "quit") == ["quit"]


def test_a_host_may_be_a_unix_socket(daemon: MakeDaemon) -> None:
    """--host takes `unix:` and a path, as the log shows it."""
    served = daemon(listen=[{"address": "unix:t.sock"}])
    ran = served.tetrad("client", "--host", f"unix:{served.folder}/t.sock", "quit")
    assert (ran.status, ran.out) == (0, "quit\n")


@pytest.mark.parametrize("words", [(), ("time",)])
def test_a_refused_connection_is_an_error(daemon: MakeDaemon, words: tuple[str, ...]) -> None:
    """The exit status is 1, and one line has the address and the reason."""
    served = daemon()
    served.stop()
    ran = served.tetrad("client", "--port", str(served.port), *words)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"tetrad: 127.0.0.1:{served.port}: connection refused\n"


def test_an_unknown_host_is_an_error(daemon: MakeDaemon) -> None:
    """The exit status is 1, without a traceback."""
    ran = daemon().tetrad("client", "--host", "no.such.host.invalid", "time")
    assert ran.status == 1
    assert "no.such.host.invalid" in ran.err
