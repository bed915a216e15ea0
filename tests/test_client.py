"""The client of the two originals: by hand on a terminal, and in words."""

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
from processes import PATIENCE_SECONDS, complain_of_defects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import MakeDaemon
    from daemons import Daemon

TIME = ANSWER.pattern.decode()
PROMPT = "CLIENT >> Enter command time or quit : "


class Terminal:
    """A person at a terminal, talking to a program."""

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
        """Wait until something is shown, and forget all up to there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(text, self.shown):
            assert time.monotonic() < deadline, f"never shown: {text}; but: {self.shown}"
            assert self._look(), f"never shown: {text}; but: {self.shown}"

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._fd, text.encode() + b"\n")

    def leave(self) -> None:
        """Type Ctrl-D."""
        os.write(self._fd, b"\x04")

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        self._process.send_signal(2)

    def finish(self) -> int:
        """Read what is still shown; return the exit status."""
        while self._look():
            pass
        return self._process.wait(PATIENCE_SECONDS)

    def _look(self) -> bool:
        """Read on; False at the end."""
        assert select.select([self._fd], [], [], PATIENCE_SECONDS)[0], self.shown
        try:
            data = os.read(self._fd, 4096)
        except OSError:
            return False  # EIO: nobody has the terminal open any more
        self.shown += data.decode().replace("\r\n", "\n")
        return bool(data)

    def __enter__(self) -> Self:
        """Be used."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process and no terminal behind."""
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
        complain_of_defects(self.shown)


def without_echo(fd: int) -> None:
    """Have a terminal show only what the program prints."""
    settings = termios.tcgetattr(fd)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSANOW, settings)


@contextlib.contextmanager
def at_terminal(daemon: Daemon, *arguments: str) -> Iterator[Terminal]:
    """Have a person talk to a daemon."""
    with Terminal(daemon, "--port", str(daemon.port), *arguments) as terminal:
        yield terminal


def in_words(daemon: Daemon, *words: str) -> list[str]:
    """Return what the client prints for some words."""
    ran = daemon.tetrad("client", "--port", str(daemon.port), *words)
    assert (ran.status, ran.err) == (0, "")
    return ran.out.splitlines()


def test_a_conversation_in_commands(daemon: MakeDaemon) -> None:
    """The lines are the first original's, from the greeting to the quit."""
    served = daemon()
    with at_terminal(served) as person:
        for word in ("time", "help", "quit"):
            person.wait_for(re.escape(PROMPT) + "$")
            person.type(word)
        assert person.finish() == 0
    assert re.fullmatch(
        f"CLIENT >> socket connect to 127.0.0.1:{served.port}\n"
        f"{PROMPT}CLIENT >> Input command : time\n"
        f"CLIENT >> received data : {TIME}\n"
        f"{PROMPT}CLIENT >> Input command : help\n"
        f"{PROMPT}CLIENT >> Input command : quit\n",
        person.shown,
    )


def test_a_conversation_in_echoes(daemon: MakeDaemon) -> None:
    """The lines are the second original's: what came back, and the end after `END`."""
    with at_terminal(
        daemon(listen=[{"port": 0, "service": "echo"}]), "--service", "echo"
    ) as person:
        person.type("hello, world")
        person.wait_for("Server: hello, world\n")
        person.type("grüße")
        person.wait_for("Server: grüße\n")
        person.type("END")
        assert person.finish() == 0
    assert person.shown.endswith("Server: END\nEND ^^\n")


def test_the_end_of_input_ends_a_conversation(daemon: MakeDaemon) -> None:
    """Ctrl-D is a polite way to leave."""
    with at_terminal(daemon()) as person:
        person.wait_for(re.escape(PROMPT))
        person.leave()
        assert person.finish() == 0


def test_an_interrupt_ends_a_conversation(daemon: MakeDaemon) -> None:
    """Ctrl-C ends it without a traceback."""
    with at_terminal(daemon()) as person:
        person.wait_for(re.escape(PROMPT))
        person.interrupt()
        assert person.finish() in {0, 130}


def test_a_server_that_leaves_is_told(daemon: MakeDaemon) -> None:
    """A person who types to a server that has gone is not left waiting."""
    served = daemon()
    with at_terminal(served) as person:
        person.wait_for(re.escape(PROMPT))
        served.wait_for("client.connected")
        served.stop()
        person.type("time")
        assert person.finish() in {0, 1}
    assert "closed" in person.shown or "reset" in person.shown or "broken" in person.shown


def test_words_are_sent_and_answers_printed(daemon: MakeDaemon) -> None:
    """Each answer is a line; a word without an answer has none."""
    lines = in_words(daemon(), "time", "nope", "time", "quit")
    assert len(lines) == 3
    assert all(re.fullmatch(TIME, line) for line in lines[:2])
    assert lines[2] == "quit"


@pytest.mark.parametrize(("timeout", "answers"), [("100ms", []), ("1m", ["x"])])
def test_an_answer_may_take_as_long_as_is_said(
    daemon: MakeDaemon, timeout: str, answers: list[str]
) -> None:
    """A program of the operator's may be slow."""
    served = daemon(commands={"slow": {"run": ["sh", "-c", "sleep 2.2; echo x"]}})
    assert in_words(served, "--timeout", timeout, "slow") == answers


def test_words_behind_quit_are_not_sent(daemon: MakeDaemon) -> None:
    """There is nobody to answer them."""
    assert in_words(daemon(), "quit", "time") == ["quit"]


@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_bytes_go_out_as_they_came(daemon: MakeDaemon, locale: dict[str, str]) -> None:
    """Words and lines that are no text in any encoding are sent, and shown escaped."""
    served = daemon(listen=[{"port": 0, "service": "echo"}])
    command = [sys.executable, "-m", "tetrad", "client", "--service", "echo"]
    command += ["--port", str(served.port)]
    variables = served.environment | locale
    said = subprocess.run([*command, b"\xff\xfe"], env=variables, capture_output=True, check=True)
    assert said.stdout == b"\\xff\\xfe\n"
    typed = subprocess.run(
        command, env=variables, input=b"\xff\nEND\n", capture_output=True, check=True
    )
    assert typed.stdout.splitlines()[1:] == [b"Server: \\xff", b"Server: END", b"END ^^"]


@pytest.mark.parametrize("host", ["a" * 64, "..", "\udcff"])
def test_what_is_no_host_is_told(daemon: MakeDaemon, host: str) -> None:
    """A name that no host can have is an error like another."""
    ran = daemon().tetrad("client", "--host", host, "time")
    assert ran.status == 1
    assert ran.err.endswith(": not the name of a host\n")


def test_words_are_echoed(daemon: MakeDaemon) -> None:
    """With the echo service each word comes back."""
    served = daemon(listen=[{"port": 0, "service": "echo"}])
    assert in_words(served, "--service", "echo", "a b", "grüße", "x" * 5000) == [
        "a b",
        "grüße",
        "x" * 5000,
    ]


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_a_host_may_be_ipv6_or_a_name(daemon: MakeDaemon, host: str) -> None:
    """--host takes what an address or a name of this machine is."""
    served = daemon(listen=[{"address": "::", "port": 0}])
    assert in_words(served, "--host", host, "quit") == ["quit"]


def test_a_host_may_be_a_unix_socket(daemon: MakeDaemon) -> None:
    """--host takes `unix:` and a path, as the log writes it."""
    served = daemon(listen=[{"address": "unix:t.sock"}])
    ran = served.tetrad("client", "--host", f"unix:{served.folder}/t.sock", "quit")
    assert (ran.status, ran.out) == (0, "quit\n")


@pytest.mark.parametrize("words", [(), ("time",)])
def test_nobody_to_connect_to_is_a_failure(daemon: MakeDaemon, words: tuple[str, ...]) -> None:
    """Status 1, and one line that says where and why."""
    served = daemon()
    served.stop()
    ran = served.tetrad("client", "--port", str(served.port), *words)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"tetrad: 127.0.0.1:{served.port}: connection refused\n"


def test_a_name_that_nobody_has_is_a_failure(daemon: MakeDaemon) -> None:
    """A host that does not exist is status 1, not a traceback."""
    ran = daemon().tetrad("client", "--host", "no.such.host.invalid", "time")
    assert ran.status == 1
    assert "no.such.host.invalid" in ran.err
