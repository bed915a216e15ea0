"""`tetrad run` in a terminal: when that hangs up, the daemon ends cleanly."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Process

SHELL = """
import os, signal, sys, time
if os.fork() == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    if sys.argv[1] == "foreground":
        os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])
signal.signal(signal.SIGHUP, signal.SIG_DFL if sys.argv[1] == "foreground" else signal.SIG_IGN)
time.sleep(1000)
"""
"""A shell with a job in the foreground, or one that sends no SIGHUP to its background job."""


class Screen:
    """A terminal with a `tetrad run` in it, whose log goes to a file."""

    def __init__(self, daemon: Daemon) -> None:
        self._ours, self._theirs = os.openpty()
        self._daemon = daemon

    def run(self, *under: str, prepare: Callable[[], object] = lambda: None) -> Process:
        """Start the daemon, optionally under another program, which gets the terminal."""

        def adopt_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            prepare()

        daemon, terminal = self._daemon, self._theirs
        command = [*under, sys.executable, "-m", "tetrad", "run", "-c", daemon.file]
        self.program = subprocess.Popen(
            command,
            env=daemon.environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=adopt_terminal,  # noqa: PLW1509 - no thread runs here
        )
        os.close(terminal)
        until(lambda: os.path.exists(daemon.pidfile) and daemon.events("server.listening"), "it")
        daemon.adopt("")
        daemon.ports = [one["port"] for one in daemon.events("server.listening")]
        return daemon.master

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        """End what has been started."""
        if self._ours >= 0:
            self.hang_up()
        self.program.kill()
        self.program.wait()


@pytest.fixture
def screen(prepared: MakeDaemon) -> Iterator[tuple[Screen, Daemon]]:
    """Return a terminal and a daemon to be started in it."""
    served = prepared()
    screen = Screen(served)
    yield screen, served
    screen.close()


def assert_ended(served: Daemon, master: Process) -> None:
    """Check that the daemon has ended as by a stop."""
    assert master.has_ended()
    events = [line["event"] for line in served.events()]
    assert "server.stopping" in events
    assert events[-1] == "server.stopped"
    assert not os.path.exists(served.pidfile)


def test_the_end_of_the_terminal_stops_the_daemon(screen: tuple[Screen, Daemon]) -> None:
    """Sessions end, the log is complete, and the exit status is that of a clean stop."""
    terminal, served = screen
    master = terminal.run()
    client = served.served()
    terminal.hang_up()
    assert client.read_all() == b""
    assert_ended(served, master)
    assert terminal.program.wait() == 0
    assert served.events("client.disconnected", reason="stopping")


@pytest.mark.parametrize("job", ["foreground", "background"])
def test_a_job_of_a_shell_ends_with_the_terminal(screen: tuple[Screen, Daemon], job: str) -> None:
    """Also in the background, where it gets no signal."""
    terminal, served = screen
    master = terminal.run(sys.executable, "-c", SHELL, job)
    terminal.hang_up()
    assert_ended(served, master)


def test_the_end_of_the_shell_stops_its_job(screen: tuple[Screen, Daemon]) -> None:
    """The terminal stays open elsewhere, but it is no longer that of the daemon."""
    terminal, served = screen
    master = terminal.run(sys.executable, "-c", SHELL, "foreground")
    terminal.program.kill()
    assert_ended(served, master)


def test_an_upgraded_daemon_ends_too(screen: tuple[Screen, Daemon]) -> None:
    """The new version watches the terminal of the old one."""
    terminal, served = screen
    master = terminal.run()
    assert served.tetrad("upgrade").status == 0
    assert served.tetrad("reload").status == 0
    terminal.hang_up()
    assert_ended(served, master)


def test_sighup_in_a_terminal_reloads(screen: tuple[Screen, Daemon]) -> None:
    """Input in the terminal neither disturbs the daemon nor keeps it busy."""
    terminal, served = screen
    terminal.run()
    os.write(terminal._ours, b"nothing\n")  # noqa: SLF001
    served.configure(limits={"clients": 7})
    served.signal(signal.SIGHUP)
    served.wait_for("server.reloaded")
    assert served.status()["clients"]["limit"] == 7
    assert ANSWER.fullmatch(served.connect().ask())


def test_behind_nohup_it_outlives_the_terminal(screen: tuple[Screen, Daemon]) -> None:
    """SIGHUP was ignored when it started; it means a reload all the same."""
    terminal, served = screen
    terminal.run(prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    terminal.hang_up()
    served.signal(signal.SIGHUP)
    served.wait_for("server.reloaded")
    assert ANSWER.fullmatch(served.connect().ask())


def test_without_a_terminal_sighup_reloads(prepared: MakeDaemon) -> None:
    """As under a service manager or in a container."""
    served = prepared()
    process = served.run(os.path.join(served.folder, "output"))
    served.wait_for("server.listening")
    served.signal(signal.SIGHUP)
    served.wait_for("server.reloaded")
    served.signal(signal.SIGTERM)
    assert process.wait() == 0
