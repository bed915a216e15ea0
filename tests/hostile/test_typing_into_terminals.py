"""`tetrad run` by root on a terminal: a handler that was taken over does not get the keyboard."""

from __future__ import annotations

import os
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.installations import Installation
from tests.support.processes import descriptors_of, stat_of, title_of, until
from tests.support.terminals import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

KEYS = "touch /root/taken"

TAKEN_OVER = f"""
        import fcntl, os, termios
        master, outcome = os.getppid(), []
        with open(f"/proc/{{master}}/cmdline", "rb") as file:
            if not file.read().startswith(b"tetrad: master"):
                return  # the master itself warms up with this code
        places = [f"/proc/{{pid}}/fd/{{fd}}" for pid in ("self", master) for fd in range(20)]
        for place in ("/dev/tty", *places, 0, 1, 2):
            try:
                fd = place if place in (0, 1, 2) else os.open(place, os.O_RDWR | os.O_NONBLOCK)
                for key in b"{KEYS}":
                    fcntl.ioctl(fd, termios.TIOCSTI, bytes([key]))
                outcome.append(str(place))
            except OSError:
                pass
        with open("outcome.new", "w") as file:
            file.write(" ".join(outcome))
        os.rename("outcome.new", "outcome")
"""
"""What the handler of an attacker does: it types, and writes down where that was possible."""

MODULE = f"""
import fcntl, os, termios
try:
    terminal = os.open("/dev/tty", os.O_RDWR)
    for key in b"{KEYS}":
        fcntl.ioctl(terminal, termios.TIOCSTI, bytes([key]))
except OSError:
    pass
def answer(context):
    return b""
"""

SET_UP = '        self._title.show(b"handler " + name)\n'


@pytest.fixture
def attacked(
    prepared: MakeDaemon, nobodys_folder: str, public_folder: str
) -> Iterator[tuple[Screen, Daemon]]:
    """Return a terminal and a daemon for it, whose handlers the attacker has taken over."""
    folder = tempfile.mkdtemp(dir=public_folder)
    os.chmod(folder, 0o755)  # noqa: S103 - the daemon's user reads it
    installed = Installation(folder)
    installed.publish(("handler/idle_wait.py", SET_UP, SET_UP + TAKEN_OVER))
    served = prepared(
        folder=nobodys_folder, daemon={"user": "nobody", "working_directory": nobodys_folder}
    )
    served.environment |= installed.environment
    screen = Screen(served)
    yield screen, served
    screen.close()


def test_a_handler_cannot_type_into_the_terminal(attacked: tuple[Screen, Daemon]) -> None:
    """It has neither the terminal nor a session with one, whatever it opens (TIOCSTI)."""
    screen, served = attacked
    screen.run()
    served.served()
    outcome = until(lambda: _read(os.path.join(served.folder, "outcome")), "the attack")
    assert outcome == "outcome: "
    assert KEYS not in screen.shown()
    screen.type(b"\x03")
    assert screen.program.wait() == 0


def test_no_process_of_the_daemon_has_the_terminal(attacked: tuple[Screen, Daemon]) -> None:
    """Only the front has it, before and after an upgrade; standard error is the logger's."""
    screen, served = attacked
    served.configure(log={"file": None})
    screen.launch()
    until(lambda: "server.listening" in screen.shown(), "the daemon")
    served.adopt("")
    for _ in range(2):
        assert served.logger
        for pid in served.processes:  # for a moment, also the logger before
            assert int(stat_of(pid)[4]) == 0
            descriptors = descriptors_of(pid)
            standard = [descriptors[fd] for fd in range(3)]
            assert standard[:2] == ["/dev/null"] * 2
            assert (standard[2] == "/dev/null") == (title_of(pid) != "tetrad: logger")
        assert served.tetrad("upgrade").status == 0
        until(lambda: "server.upgraded" in screen.shown(), "the log")
    os.kill(screen.front, signal.SIGKILL)
    assert served.is_gone()


def test_a_function_cannot_type_into_the_terminal_of_a_check(
    prepared: MakeDaemon, nobodys_folder: str, public_folder: str
) -> None:
    """`tetrad check` by root imports modules as the daemon's user, who has no terminal there."""
    folder = tempfile.mkdtemp(dir=public_folder)
    os.chmod(folder, 0o755)  # noqa: S103 - the daemon's user reads it
    with open(os.path.join(folder, "typing_module.py"), "w", encoding="utf-8") as file:
        file.write(MODULE)
    served = prepared(
        folder=nobodys_folder,
        daemon={"user": "nobody"},
        commands={"what": {"call": "typing_module:answer"}},
    )
    served.environment["PYTHONPATH"] = folder
    screen = Screen(served)
    try:
        screen.launch(command="check")
        assert screen.program.wait() == 0
        assert "configuration OK" in screen.shown()
        assert KEYS not in screen.shown()
    finally:
        screen.close()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return f"outcome: {file.read()}"
    except FileNotFoundError:
        return ""
