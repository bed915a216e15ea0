"""Codes that control a terminal, in answers, names and events: none reaches a terminal raw."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import TIMEOUT_SECONDS, in_background, until
from tests.support.terminals import Screen
from tetrad.ipc.fds import EVENTS_WRITE
from tetrad.ipc.log_protocol import CONTEXT_MARK

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

CODES = "\x1b]0;title\x07\x1b[2J\x9b31m\rover\u202ewritten"
"""Set the title, erase the screen, colour, overwrite the line, and reverse what follows."""

SHOWN = "\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\rover\\u202ewritten"


def on_terminal(daemon: Daemon, *arguments: str) -> str:
    """Return what a command prints on a terminal, and check that no code is among it."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tetrad", *arguments]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, env=daemon.environment, **streams) as ran:
        os.close(theirs)
        text = b""
        with contextlib.suppress(OSError):  # EIO is a terminal's end of file
            while select.select([ours], [], [], TIMEOUT_SECONDS)[0]:
                text += os.read(ours, 65536)
        os.close(ours)
        assert ran.wait(TIMEOUT_SECONDS) is not None
    return text.decode()


def assert_harmless(text: str) -> None:
    """Check that a terminal shows each character of a text as one, in its own lines."""
    for line in text.split("\r\n"):
        assert line.isprintable(), ascii(line)


def test_an_answer_of_a_server_is_shown_and_not_obeyed(prepared: MakeDaemon) -> None:
    """By a client on a terminal; its lines remain. In a pipe, an answer stays as it is."""
    asked = prepared()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                peer, _address = server.accept()
                with peer:
                    peer.recv(100)
                    peer.sendall(f"first\r\n{CODES}".encode())

        thread = in_background(serve)
        to = ("client", "--port", str(server.getsockname()[1]), "--host", "127.0.0.1", "time")
        text = on_terminal(asked, *to)
        assert_harmless(text)
        assert text == f"first\r\n{SHOWN}\r\n"
        piped = asked.tetrad(*to)
        assert CODES.replace("\r", "\n") in piped.out
        thread.join()


@pytest.mark.parametrize("command", ["check", "check --dump", "logs"])
def test_names_of_files_are_shown_and_not_obeyed(prepared: MakeDaemon, command: str) -> None:
    """In results and in errors."""
    asked = prepared()
    asked.configure(
        daemon={"control": os.path.join(asked.folder, "control.sock")},
        log={"file": f"{CODES}.log"},
    )
    file = os.path.join(asked.folder, f"{CODES}.yaml")
    os.rename(asked.file, file)
    shown = on_terminal(asked, *command.split(), "-c", file)
    assert_harmless(shown)
    assert "title" in shown


def test_arguments_are_shown_and_not_obeyed(prepared: MakeDaemon) -> None:
    """In the errors of argparse."""
    shown = on_terminal(prepared(), "status", CODES)
    assert_harmless(shown)
    assert SHOWN in shown


@pytest.mark.parametrize("style", ["console", "logfmt", "json"])
def test_the_log_on_a_terminal_is_shown_and_not_obeyed(prepared: MakeDaemon, style: str) -> None:
    """What a function raises about its client, or a handler writes that was taken over."""
    served = prepared(log={"file": None, "format": style})
    screen = Screen(served)
    try:
        screen.launch()
        until(lambda: "server.listening" in screen.shown(), "the log")
        served.adopt("")
        served.ports = [served.status()["listeners"][0]["port"]]
        client = served.served()
        event = '0 info client.forged {"text":"\\u001b]0;title\\u0007\\nx","\\u001b[2J":1}\n'
        until(lambda: "client.command" in screen.shown(), "the log")
        pipe = os.open(f"/proc/{served.handlers[0]}/fd/{EVENTS_WRITE}", os.O_WRONLY)
        os.write(pipe, f'{CONTEXT_MARK}{{"pid":1}}\n{event}'.encode())
        os.close(pipe)
        until(lambda: "client.forged" in screen.shown(), "the log")
        assert ANSWER.fullmatch(client.ask())
        client.quit()
        until(lambda: "client.disconnected" in screen.shown(), "the log")
        shown = screen.shown()
        assert "\x1b]" not in shown
        assert "\x1b[2J" not in shown
        assert "\x07" not in shown
        assert all("client.forged" in line for line in shown.split("\r\n") if "title" in line)
    finally:
        screen.close()
