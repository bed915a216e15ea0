"""Locks that other programs take on a pidfile: named, and never taken for a daemon."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import run, until
from tetrad.launch import pidfile
from tetrad.launch.running_daemon import TITLE_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

LOCK = """
import fcntl, os, sys
kind, path = sys.argv[1:3]
fd = os.open(path, os.O_RDONLY if kind != "write" else os.O_RDWR)
if kind == "start":
    fcntl.flock(fd, fcntl.LOCK_EX)
else:
    command = fcntl.LOCK_EX if kind == "write" else fcntl.LOCK_SH
    fcntl.lockf(fd, command, 1, int.from_bytes(b"tetrad"))
print("held", flush=True)
sys.stdin.read()
"""
"""A program that takes one of the locks of a daemon, or a lock to read the same byte."""


@pytest.fixture
def asked(prepared: MakeDaemon) -> Daemon:
    """Return a daemon that does not run, with a pidfile that all users can read."""
    made = prepared()
    with open(made.pidfile, "w", encoding="ascii"):
        pass
    os.chmod(made.pidfile, 0o644)
    return made


@pytest.fixture
def locker(asked: Daemon, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that locks the pidfile; further words of its command line may follow."""
    kind, *rest = request.param.split()
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, kind, asked.pidfile, *rest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield other
        other.kill()


@pytest.mark.parametrize("locker", ["read", "write"], indirect=True)
def test_a_lock_of_another_program_is_no_daemon(
    asked: Daemon, locker: subprocess.Popen[bytes]
) -> None:
    """No command takes it for a daemon or waits, and the program is not signalled."""
    names = ("start", "status", "stop", "reload", "restart")
    began = time.monotonic()
    ran = {name: asked.tetrad(name) for name in names}
    assert {name: one.status for name, one in ran.items()} == {
        **dict.fromkeys(names, 1),
        "status": 4,
    }
    assert time.monotonic() - began < TITLE_TIMEOUT_SECONDS
    for one in ran.values():
        assert one.out == ""
        assert f"{asked.pidfile}: locked by another program (pid {locker.pid})" in one.err
    assert locker.poll() is None


@pytest.mark.parametrize(
    "locker",
    ["write /run/tetrad", "write tetrad start", "write tetrad.master.process"],
    indirect=True,
)
@pytest.mark.parametrize("name", ["status", "stop"])
def test_a_program_that_looks_like_a_start_is_not_waited_for(
    asked: Daemon, locker: subprocess.Popen[bytes], name: str
) -> None:
    """A start does not sleep between the lock and its title."""
    began = time.monotonic()
    ran = asked.tetrad(name)
    assert time.monotonic() - began < TITLE_TIMEOUT_SECONDS / 2
    assert f"{asked.pidfile}: locked by another program (pid {locker.pid})" in ran.err
    assert locker.poll() is None


@pytest.mark.parametrize("locker", ["read"], indirect=True)
def test_a_lock_to_read_counts_for_no_program(
    asked: Daemon, locker: subprocess.Popen[bytes]
) -> None:
    """Whatever its title is: who may only read the file could take it."""
    with pytest.raises(pidfile.NotAPidfileError, match=f"pid {locker.pid}"):
        pidfile.read_state(asked.pidfile)


@pytest.mark.parametrize("locker", ["start"], indirect=True)
def test_a_start_does_not_wait_forever(asked: Daemon, locker: subprocess.Popen[bytes]) -> None:
    """It names the program that holds the lock."""
    ran = asked.tetrad("start")
    assert (ran.status, ran.out) == (1, "")
    assert f"{asked.pidfile}: locked by another program (pid {locker.pid})" in ran.err


@pytest.mark.parametrize("locker", ["start"], indirect=True)
def test_a_start_that_waits_heeds_signals(asked: Daemon, locker: subprocess.Popen[bytes]) -> None:
    """SIGTERM ends it at once."""
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    with subprocess.Popen(command, env=asked.environment, stderr=subprocess.PIPE) as starter:
        until(lambda: asked.pidfile in open_files(starter.pid), "the start to open the pidfile")
        time.sleep(0.1)
        before = time.monotonic()
        starter.send_signal(signal.SIGTERM)
        assert starter.wait(30) == 128 + signal.SIGTERM
        assert time.monotonic() - before < 5
    assert locker.poll() is None


def test_other_users_cannot_open_the_pidfile(asked: Daemon) -> None:
    """Also if an older version has left one that they could read."""
    asked.start()
    assert stat.S_IMODE(os.stat(asked.pidfile).st_mode) == 0o600


def test_another_user_cannot_hold_up_a_start(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """Not even with a pidfile of his own in a folder of his own: it is replaced."""
    asked = prepared(folder=nobodys_folder, daemon={"user": "nobody"})
    become = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    ran = run(["touch", asked.pidfile], asked.environment, **become)
    assert ran.status == 0
    asked.start()
    status = os.stat(asked.pidfile)
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)


def open_files(pid: int) -> list[str]:
    """Return the files that a process has open."""
    try:
        return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []
