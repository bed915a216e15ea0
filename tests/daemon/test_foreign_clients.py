"""Common client programs: netcat, socat, telnet and others."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import TIMEOUT_SECONDS

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

LISTEN = [{"port": 0}, {"port": 0, "service": "echo"}]
ECHO = 1
"""The index of a listener in LISTEN."""

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
WITHOUT_ANSWERS = {"telnet"}
"""They exit at the end of their input, without waiting for answers."""

PACKAGES = {"nc": "netcat-openbsd", "telnet": "telnet", "ncat": "ncat", "socat": "socat"}


def send_with(daemon: Daemon, name: str, text: bytes, listener: int = 0) -> bytes:
    """Send text with a client program, and return its output."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}")
    if name == "nc" and b"OpenBSD" not in help_of_nc():
        pytest.skip("nc is not OpenBSD's: apt-get install netcat-openbsd")
    command = [part.format(port=daemon.ports[listener]) for part in CLIENTS[name]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as program:
        if name in WITHOUT_ANSWERS:
            return communicate_until_closed(program, text)
        return program.communicate(text, TIMEOUT_SECONDS)[0]


def communicate_until_closed(program: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Send text, and keep the input open until the server has closed the connection."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(text)
    program.stdin.flush()
    return program.stdout.read()


def help_of_nc() -> bytes:
    """Return the help text of this machine's nc."""
    ran = subprocess.run(
        ["nc", "-h"],  # noqa: S607 - the nc that a shell finds
        capture_output=True,
        check=False,
    )
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("name", CLIENTS)
def test_typed_commands_are_answered(shared_daemon: MakeDaemon, name: str) -> None:
    """Lines typed into a client program are answered."""
    answers = send_with(shared_daemon(listen=LISTEN), name, b"time\r\ntime\nquit\n")
    assert re.search(ANSWER.pattern * 2 + b"quit", answers), answers


@pytest.mark.parametrize("name", [name for name in CLIENTS if name not in {"telnet", "bash"}])
def test_a_half_closing_client_program_is_answered(shared_daemon: MakeDaemon, name: str) -> None:
    """`printf time | nc` gets its answer."""
    served = shared_daemon(listen=LISTEN)
    assert ANSWER.fullmatch(send_with(served, name, b"time"))
    assert served.wait_for("client.disconnected")["reason"] == "eof"


@pytest.mark.parametrize("name", ["nc", "ncat", "socat"])
def test_a_megabyte_is_echoed_through_a_client_program(
    shared_daemon: MakeDaemon, name: str
) -> None:
    """The echo service returns it completely."""
    text = bytes(range(256)) * 4096
    assert send_with(shared_daemon(listen=LISTEN), name, text, ECHO) == text


def test_telnet_sends_no_invalid_command(shared_daemon: MakeDaemon) -> None:
    """A telnet session with two commands has no others in the log."""
    served = shared_daemon(listen=LISTEN)
    send_with(served, "telnet", b"time\r\nquit\r\n")
    assert served.wait_for("client.disconnected")["commands"] == 2
    assert not served.events("client.invalid")
