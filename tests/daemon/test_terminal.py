"""`tetrad run` in a terminal: a front there, job control, and what ends the daemon."""

from __future__ import annotations

import os
import resource
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER, ANSWER_BYTES
from tests.support.processes import descriptors_of, state_of, until
from tests.support.terminals import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    terminal.type(b"nothing\n")
    served.configure(limits={"clients": 7})
    os.kill(terminal.front, signal.SIGHUP)
    served.wait_for("server.reloaded")
    assert served.status()["clients"]["limit"] == 7
    assert ANSWER.fullmatch(served.connect().ask())


def test_behind_nohup_it_outlives_the_terminal(screen: tuple[Screen, Daemon]) -> None:
    """SIGHUP was ignored when it started; it means a reload all the same."""
    terminal, served = screen
    terminal.run(prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    front = terminal.front
    terminal.hang_up()
    os.kill(front, signal.SIGHUP)
    served.wait_for("server.reloaded")
    assert ANSWER.fullmatch(served.connect().ask())


def test_ctrl_c_stops_gracefully_and_twice_at_once(screen: tuple[Screen, Daemon]) -> None:
    """The first one lets a started command finish, the second one does not."""
    terminal, served = screen
    served.configure(daemon={"stop_timeout": "1h"})
    master = terminal.run()
    finishing, stuck = served.served(), served.served()
    finishing.send_and_wait(b"ti")
    stuck.send_and_wait(b"ti")
    terminal.type(b"\x03")
    served.wait_for("server.stopping")
    finishing.send(b"me")
    assert ANSWER.fullmatch(finishing.read_all())
    terminal.type(b"\x03")
    assert stuck.read_all() == b""
    assert_ended(served, master)
    assert terminal.program.wait() == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGQUIT, 0), (signal.SIGKILL, 128 + 9)]
)
def test_the_front_ends_with_the_status_of_the_daemon(
    screen: tuple[Screen, Daemon], number: int, status: int
) -> None:
    """After a stop, and after a signal that killed the master, as a shell shows it."""
    terminal, served = screen
    terminal.run()
    if number == signal.SIGKILL:
        served.signal(number)
    else:
        os.kill(terminal.front, number)
    assert terminal.program.wait() == status


def test_the_front_keeps_nothing_of_the_daemon(screen: tuple[Screen, Daemon]) -> None:
    """A listener that it had would outlive the master, and a reload that closes it."""
    terminal, served = screen
    terminal.run()
    names = descriptors_of(terminal.front).values()
    assert "/dev/tty" in names
    assert not [name for name in names if name.startswith("socket:") or name == served.pidfile]


def test_the_daemon_stops_if_the_front_is_killed(screen: tuple[Screen, Daemon]) -> None:
    """As after SIGTERM, also by a new version."""
    terminal, served = screen
    master = terminal.run()
    assert served.tetrad("upgrade").status == 0
    client = served.served()
    os.kill(terminal.front, signal.SIGKILL)
    assert client.read_all() == b""
    assert_ended(served, master)


def test_ctrl_z_suspends_the_daemon_until_the_shell_continues_it(
    screen: tuple[Screen, Daemon],
) -> None:
    """All of its processes; a client waits meanwhile."""
    terminal, served = screen
    terminal.run(sys.executable, "-c", SHELL, "foreground")
    client = served.served()
    everyone = [terminal.front, *served.processes]
    terminal.type(b"\x1a")
    for pid in everyone:
        until(partial(_is_suspended, pid), "all to be suspended")
    client.send(b"time")
    os.kill(terminal.front, signal.SIGCONT)
    assert ANSWER.fullmatch(client.read(ANSWER_BYTES))
    assert "T" not in [state_of(pid) for pid in everyone[1:]]


def test_ctrl_z_without_a_shell_has_no_effect(screen: tuple[Screen, Daemon]) -> None:
    """Nothing could continue the daemon, as in a container with a terminal."""
    terminal, served = screen
    terminal.run()
    client = served.served()
    terminal.type(b"\x1a")
    assert ANSWER.fullmatch(client.ask())
    terminal.type(b"\x03")
    assert terminal.program.wait() == 0


def test_the_log_on_the_terminal_is_complete_at_the_end(screen: tuple[Screen, Daemon]) -> None:
    """First what the command prints, then the log, and nothing after the end of the front."""
    terminal, served = screen
    served.configure(log={"file": None})
    terminal.launch()
    until(lambda: "server.listening" in terminal.shown(), "the log")
    served.adopt("")
    terminal.type(b"\x03")
    assert terminal.program.wait() == 0
    lines = terminal.shown().splitlines()
    assert lines[0].startswith("tetrad: command service at ")
    assert "server.stopped" in lines[-1]


def test_a_failed_start_on_a_terminal_is_reported(screen: tuple[Screen, Daemon]) -> None:
    """What fails in the child, too: the front prints it, and removes what it has made."""
    terminal, served = screen
    terminal.launch(prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)))
    assert terminal.program.wait() == 1
    assert terminal.shown().splitlines()[-1].startswith("tetrad: too many open files")
    assert not os.path.exists(served.pidfile)
    assert not os.path.exists(os.path.join(served.folder, "control.sock"))


def test_without_a_terminal_sighup_reloads(prepared: MakeDaemon) -> None:
    """As under a service manager or in a container."""
    served = prepared()
    process = served.run(os.path.join(served.folder, "output"))
    served.wait_for("server.listening")
    served.signal(signal.SIGHUP)
    served.wait_for("server.reloaded")
    served.signal(signal.SIGTERM)
    assert process.wait() == 0


def _is_suspended(pid: int) -> bool:
    return state_of(pid) == "T"
