"""A start right after the master was killed waits for what the dead daemon still holds."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import title_of, until
from tests.support.strace import attached, needs_strace
from tetrad.config.yaml_reader import load
from tetrad.launch import pidfile, running_daemon

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

DELAY_SECONDS = 1.0
"""How long a handler keeps its copies of the listeners; less than the start waits."""

WAIT_SECONDS = 2.0
"""How long a start waits."""


def with_fixed_port(daemon: MakeDaemon) -> Daemon:
    """Start a daemon whose file names the port that the kernel has chosen."""
    unix = {"address": "unix:t.sock"}
    served = daemon(listen=[{"port": 0}, unix])
    served.configure(listen=[{"port": served.port}, unix])
    served.allow_lost_handlers = True
    return served


def kill(daemon: Daemon) -> None:
    """Kill the master."""
    daemon.signal(signal.SIGKILL)
    assert daemon.is_gone()


@needs_strace
def test_a_start_waits_for_the_sockets_that_a_new_handler_holds(daemon: MakeDaemon) -> None:
    """A handler closes its copies of the master's descriptors first of all; this one is slow."""
    served = with_fixed_port(daemon)
    delay = f"delay_enter={DELAY_SECONDS * 1_000_000:.0f}"
    with attached(served.pid, "close_range", delay, follow=True) as trace:
        served.connect()
        until(trace.points, "a new handler")
        kill(served)
        ran = served.tetrad("start")
    assert (ran.status, ran.err) == (0, "")
    served.adopt(ran.out)
    assert ANSWER.fullmatch(served.connect().ask())


@pytest.mark.alone
def test_a_port_that_another_program_has_taken_is_reported(daemon: MakeDaemon) -> None:
    """After the time that the processes of the dead daemon have to end."""
    served = with_fixed_port(daemon)
    kill(served)
    with socket.create_server(("127.0.0.1", served.port)):
        began = time.monotonic()
        ran = served.tetrad("start")
    assert ran.status == 1
    assert "another program listens there, or connects from there (ss -tanp shows it)" in ran.err
    assert WAIT_SECONDS <= time.monotonic() - began < 2 * WAIT_SECONDS


LOCK = """
import os, sys, time
from tetrad.launch import pidfile
with pidfile.start_lock(sys.argv[1]) as fd:
    pidfile.claim(fd)
    memory = b"x" * (256 << 20)
    print("locked", flush=True)
    time.sleep(60)
"""
"""A process that holds a pidfile as a master does, and takes some time to give its memory back."""


def test_a_process_that_is_exiting_is_no_other_program(prepared: MakeDaemon) -> None:
    """It has no title any more, but its lock still: the memory goes first."""
    asked = prepared()
    settings = load(asked.file).config.daemon
    command = [sys.executable, "-c", LOCK, asked.pidfile]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        owner.kill()
        until(lambda: not title_of(owner.pid), "the process to have no memory")
        is_locked = pidfile.read_state(asked.pidfile).pid == owner.pid
        assert running_daemon.find(settings, asked.file) is None
    assert is_locked
