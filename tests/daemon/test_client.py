"""`tetrad client`: the two interactive dialogs, and words on the command line."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.support.clients import ANSWER
from tests.support.commands import run_here
from tests.support.processes import TIMEOUT_SECONDS, assert_no_traceback, in_background

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

TIME = ANSWER.pattern.decode()
LISTEN = [
    {"port": 0},
    {"port": 0, "service": "echo"},
    {"address": "::", "port": 0},
    {"address": "unix:t.sock"},
]
ECHO, DUAL_STACK = 1, 2
"""Listeners in LISTEN."""

NO_REPLY = ("--timeout", "1s")
"""Shortens the wait for the reply to an unknown command, which gets none."""

LONGER_THAN_THE_DEFAULT_SECONDS = 2.05
"""Longer than the default of --timeout."""

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
def at_terminal(daemon: Daemon, *arguments: str, listener: int = 0) -> Iterator[Terminal]:
    """Run an interactive client of a daemon."""
    with Terminal(daemon, "--port", str(daemon.ports[listener]), *arguments) as terminal:
        yield terminal


def replies(daemon: Daemon, *words: str, listener: int = 0) -> list[str]:
    """Return the lines that the client prints for words."""
    ran = run_here(daemon, "client", "--port", str(daemon.ports[listener]), *words)
    assert (ran.status, ran.err) == (0, "")
    return ran.out.splitlines()


@pytest.mark.quick
def test_the_dialog_of_the_service_command(shared_daemon: MakeDaemon) -> None:
    """The output is that of the time/quit client that tetrad reproduces."""
    served = shared_daemon(listen=LISTEN)
    with at_terminal(served, *NO_REPLY) as terminal:
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


@pytest.mark.quick
def test_the_dialog_of_the_service_echo(shared_daemon: MakeDaemon) -> None:
    """The output is that of the echo client that tetrad reproduces."""
    served = shared_daemon(listen=LISTEN)
    with at_terminal(served, "--service", "echo", listener=ECHO) as terminal:
        terminal.type("hello, world")
        terminal.wait_for("Server: hello, world\n")
        terminal.type("grüße")
        terminal.wait_for("Server: grüße\n")
        terminal.type("END")
        assert terminal.finish() == 0
    assert terminal.shown.endswith("Server: END\nEND ^^\n")


def test_the_end_of_input_ends_the_dialog(shared_daemon: MakeDaemon) -> None:
    """Ctrl-D ends the client with exit status 0."""
    with at_terminal(shared_daemon(listen=LISTEN)) as terminal:
        terminal.wait_for(re.escape(PROMPT))
        terminal.end_input()
        assert terminal.finish() == 0


def test_an_interrupt_ends_the_dialog(shared_daemon: MakeDaemon) -> None:
    """Ctrl-C ends the client without a traceback."""
    with at_terminal(shared_daemon(listen=LISTEN)) as terminal:
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


@pytest.mark.quick
def test_words_are_sent_and_replies_printed(shared_daemon: MakeDaemon) -> None:
    """Each reply is a line."""
    lines = replies(shared_daemon(listen=LISTEN), "time", "time", "quit")
    assert len(lines) == 3
    assert all(re.fullmatch(TIME, line) for line in lines[:2])
    assert lines[2] == "quit"


def test_the_timeout_of_a_reply_is_an_option(daemon: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """The program of a command may be slow: this one outlasts the default."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    served = daemon(commands={"slow": {"run": ["cat", pipe]}})

    def answer() -> None:
        with open(pipe, "w", encoding="ascii") as answers:  # waits for the program
            threading.Event().wait(LONGER_THAN_THE_DEFAULT_SECONDS)
            answers.write("x\n")

    answering = in_background(answer)
    printed = replies(served, "--timeout", "1m", "slow")
    answering.join()
    assert printed == ["x"]


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_words_are_sent_byte_for_byte(shared_daemon: MakeDaemon, locale: dict[str, str]) -> None:
    """Words and lines that are not valid in the encoding are sent, and printed escaped."""
    served = shared_daemon(listen=LISTEN)
    command = [sys.executable, "-m", "tetrad", "client", "--service", "echo"]
    command += ["--port", str(served.ports[ECHO])]
    variables = served.environment | locale
    ran = subprocess.run([*command, b"\xff\xfe"], env=variables, capture_output=True, check=True)
    assert ran.stdout == b"\\xff\\xfe\n"
    typed = subprocess.run(
        command, env=variables, input=b"\xff\nEND\n", capture_output=True, check=True
    )
    assert typed.stdout.splitlines()[1:] == [b"Server: \\xff", b"Server: END", b"END ^^"]


@pytest.mark.parametrize("host", ["a" * 64, "..", "\udcff"])
def test_an_invalid_host_name_is_reported(prepared: MakeDaemon, host: str) -> None:
    """A name that no host can have is a failure in one line."""
    ran = run_here(prepared(), "client", "--host", host, "--port", "1", "time")
    assert ran.status == 1
    assert ran.err.endswith(": not a valid host name\n")


def test_words_are_echoed(shared_daemon: MakeDaemon) -> None:
    """The service echo sends each word back."""
    served = shared_daemon(listen=LISTEN)
    words = ["a b", "grüße", "x" * 5000]
    assert replies(served, "--service", "echo", *words, listener=ECHO) == words


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_a_host_may_be_ipv6_or_a_name(shared_daemon: MakeDaemon, host: str) -> None:
    """--host accepts addresses and names."""
    served = shared_daemon(listen=LISTEN)
    assert replies(served, "--host", host, "quit", listener=DUAL_STACK) == ["quit"]


def test_a_host_may_be_a_unix_socket(shared_daemon: MakeDaemon) -> None:
    """--host accepts `unix:` and a path, as in the log."""
    served = shared_daemon(listen=LISTEN)
    ran = run_here(served, "client", "--host", f"unix:{served.folder}/t.sock", "quit")
    assert (ran.status, ran.out) == (0, "quit\n")


@pytest.mark.parametrize("words", [(), ("time",)])
def test_a_refused_connection_is_a_failure(prepared: MakeDaemon, words: tuple[str, ...]) -> None:
    """The exit status is 1, and the message has the address and the reason."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        ran = run_here(prepared(), "client", "--port", str(port), *words)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"tetrad: 127.0.0.1:{port}: connection refused\n"


def test_an_unknown_host_name_is_a_failure(prepared: MakeDaemon) -> None:
    """The exit status is 1, and the message has the name."""
    served = prepared()
    # Without a network, the resolver would wait for its name servers for ten seconds.
    served.environment["RES_OPTIONS"] = "timeout:1 attempts:1"
    ran = served.tetrad("client", "--host", "no.such.host.invalid", "--port", "1", "time")
    assert ran.status == 1
    assert "no.such.host.invalid" in ran.err
