"""Commands with the file of another daemon: refused with both names; and daemons without files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import run, stopped

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

HOLD = """
import sys
from tetrad.launch import pidfile
from tetrad.system.proctitle import ProcessTitle
ProcessTitle().show(sys.argv[2].encode())
with pidfile.start_lock(sys.argv[1]) as fd:
    pidfile.claim(fd)
    print("held", flush=True)
    sys.stdin.read()
"""
"""A program that locks a pidfile as a daemon does, with a title."""


def other_file(served: Daemon, **changes: str) -> str:
    """Write a second file with the same paths but for these; return its path."""
    other = os.path.join(served.folder, "other.yaml")
    with open(served.file, encoding="utf-8") as file:
        text = file.read()
    for old, new in changes.items():
        text = text.replace({"pidfile": "tetrad.pid", "control": "control.sock"}[old], new)
    with open(other, "w", encoding="utf-8") as file:
        file.write(text)
    return other


@pytest.mark.parametrize("changes", [{}, {"pidfile": "b.pid"}, {"control": "b.sock"}])
@pytest.mark.parametrize("command", ["start", "stop", "restart", "reload", "upgrade"])
def test_a_command_with_another_file_is_refused(
    shared_daemon: MakeDaemon, command: str, changes: dict[str, str]
) -> None:
    """The same pidfile or the same control socket is enough; the message names both files."""
    served = shared_daemon()
    other = other_file(served, **changes)
    ran = run([sys.executable, "-m", "tetrad", command, "-c", other], served.environment)
    assert (ran.status, ran.out) == (1, ""), ran
    assert f"(pid {served.pid}) runs with {served.file}, not with {other}" in ran.err
    assert ANSWER.fullmatch(served.connect().ask())
    assert not served.events("server.reloaded")
    assert not os.path.exists(os.path.join(served.folder, "b.pid"))


def test_a_status_with_another_file_says_so(shared_daemon: MakeDaemon) -> None:
    """It is printed, and a warning names both files."""
    served = shared_daemon()
    other = other_file(served)
    ran = run([sys.executable, "-m", "tetrad", "status", "-c", other], served.environment)
    assert ran.status == 0
    assert ran.err == (f"tetrad: warning: this daemon runs with {served.file}, not with {other}\n")


def test_the_same_file_is_already_running(shared_daemon: MakeDaemon) -> None:
    """The exit status is 0, also by a relative path."""
    served = shared_daemon()
    command = [sys.executable, "-m", "tetrad", "start", "-c", "../x/../tetrad.yaml"]
    os.mkdir(os.path.join(served.folder, "x"))
    ran = run(command, served.environment, cwd=os.path.join(served.folder, "x"))
    assert (ran.status, ran.out) == (0, f"tetrad: already running (pid {served.pid})\n")


def remove_pidfile(served: Daemon) -> None:
    """Remove the pidfile, as a cleaner of temporary files does."""
    os.unlink(served.pidfile)


def remove_control_socket(served: Daemon) -> None:
    """Remove the control socket."""
    os.unlink(os.path.join(served.folder, "control.sock"))


def remove_both(served: Daemon) -> None:
    """Remove the runtime files, as at the end of a login session."""
    remove_pidfile(served)
    remove_control_socket(served)


REMOVALS = [remove_pidfile, remove_control_socket, remove_both]


@pytest.mark.parametrize("remove", REMOVALS)
def test_a_daemon_without_its_files_is_stopped(daemon: MakeDaemon, remove: object) -> None:
    """`status` does not say that it is not running, `start` starts no second one, `stop` stops."""
    served = daemon()
    assert callable(remove)
    remove(served)
    status = served.tetrad("status")
    assert status.status == (0 if remove is remove_pidfile else 4)
    assert f"(pid {served.pid})" in status.out + status.err
    started = served.tetrad("start")
    assert (started.status, started.out) == (0, f"tetrad: already running (pid {served.pid})\n")
    ran = served.tetrad("stop")
    assert (ran.status, ran.out) == (0, f"tetrad: stopped (pid {served.pid})\n")
    assert served.is_gone()
    assert served.tetrad("stop").out == served.not_running


def test_a_restart_without_its_files_replaces_the_daemon(daemon: MakeDaemon) -> None:
    """The old daemon is stopped first."""
    served = daemon()
    remove_both(served)
    ran = served.tetrad("restart")
    assert ran.status == 0, ran
    assert ran.out.startswith(f"tetrad: stopped (pid {served.pid})\ntetrad: started (pid ")
    assert served.is_gone()
    served.adopt(ran.out)


def test_a_suspended_daemon_without_its_files_is_not_reported_as_stopped(
    daemon: MakeDaemon,
) -> None:
    """A daemon that does not respond is found by its lock."""
    served = daemon()
    remove_both(served)
    with stopped(served.pid):
        ran = served.tetrad("status")
    assert (ran.status, ran.out) == (4, "")
    assert f"running (pid {served.pid}), but not responding" in ran.err


def test_another_daemon_is_named(daemon: MakeDaemon, prepared: MakeDaemon) -> None:
    """The message that none is running names the daemons that are."""
    served, asked = daemon(), prepared()
    command = [sys.executable, "-m", "tetrad", "status", "-c", asked.file]
    ran = run(command, asked.environment)
    assert (ran.status, ran.out) == (3, asked.not_running)
    assert ran.err.startswith("tetrad: other running daemons: pid ")
    assert f"pid {served.pid} with {served.file}" in ran.err or " more\n" in ran.err


def test_a_daemon_of_another_user_with_this_file_is_not_signalled(
    prepared: MakeDaemon, nobodys_folder: str
) -> None:
    """Root's `stop` names it: whoever may lock a file of his own can claim to be the daemon."""
    asked = prepared()
    own = os.path.join(nobodys_folder, "own.pid")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, own, f"master {asked.file}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user="nobody",
        group="nogroup",
        extra_groups=[],
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        ran = {name: asked.tetrad(name) for name in ("status", "stop", "reload")}
        assert [one.status for one in ran.values()] == [4, 1, 1]
        for one in ran.values():
            assert f"pid {other.pid} of user nobody runs with {asked.file}" in one.err
        asked.start()
        assert other.poll() is None
        other.kill()
    shutil.rmtree(nobodys_folder)
