"""Clients that somebody else has written: what a person at a shell would use."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER
from processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    from conftest import MakeDaemon
    from daemons import Daemon

ECHO = [{"port": 0, "service": "echo"}]

CLIENTS = {
    "nc": ["nc", "-N", "127.0.0.1", "{port}"],
    "ncat": ["ncat", "127.0.0.1", "{port}"],
    "socat": ["socat", "-t5", "-", "TCP:127.0.0.1:{port}"],
    "telnet": ["telnet", "127.0.0.1", "{port}"],
    "bash": [
        "bash",
        "-c",
        "exec 3<>/dev/tcp/127.0.0.1/{port}; cat >&3; cat <&3",
    ],
}
HASTY = {"telnet"}
"""They leave when their input ends, without hearing the answers."""

PACKAGES = {"nc": "netcat-openbsd", "telnet": "telnet", "ncat": "ncat", "socat": "socat"}


def say(daemon: Daemon, name: str, text: bytes) -> bytes:
    """Have a program say something, and return what it was told."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: install {PACKAGES.get(name, name)}")
    if name == "nc" and b"OpenBSD" not in help_of_nc():
        pytest.skip("nc is not OpenBSD's: install netcat-openbsd")
    command = [part.format(port=daemon.port) for part in CLIENTS[name]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as program:
        if name in HASTY:
            return hear_out(program, text)
        return program.communicate(text, PATIENCE_SECONDS)[0]


def hear_out(program: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Say something, and end the input only when the server has ended the session."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(text)
    program.stdin.flush()
    return program.stdout.read()


def help_of_nc() -> bytes:
    """Return how this machine's nc introduces itself."""
    ran = subprocess.run(
        ["nc", "-h"],  # noqa: S607 - whichever nc the person at the shell would get
        capture_output=True,
        check=False,
    )
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("name", CLIENTS)
def test_commands_by_hand(daemon: MakeDaemon, name: str) -> None:
    """Lines typed into a foreign client, quit last, get their answers."""
    answers = say(daemon(), name, b"time\r\ntime\nquit\n")
    assert re.search(ANSWER.pattern * 2 + b"quit", answers), answers


@pytest.mark.parametrize("name", [name for name in CLIENTS if name not in {"telnet", "bash"}])
def test_commands_of_a_client_that_half_closes(daemon: MakeDaemon, name: str) -> None:
    """`printf time | nc` is answered, though the client has ended its side already."""
    served = daemon()
    assert ANSWER.fullmatch(say(served, name, b"time"))
    assert served.wait_for("client.disconnected")["reason"] == "eof"


@pytest.mark.parametrize("name", ["nc", "ncat", "socat"])
def test_a_megabyte_through_a_foreign_client(daemon: MakeDaemon, name: str) -> None:
    """What a foreign client sends to the echo service comes back whole."""
    text = bytes(range(256)) * 4096
    assert say(daemon(listen=ECHO), name, text) == text


def test_telnet_negotiates_nothing_that_hurts(daemon: MakeDaemon) -> None:
    """A session by telnet has two commands, and nothing invalid."""
    served = daemon()
    say(served, "telnet", b"time\r\nquit\r\n")
    assert served.wait_for("client.disconnected")["commands"] == 2
    assert not served.events("client.invalid")
