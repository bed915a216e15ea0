"""Signals to a daemon, and who listens on a socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tetrad.ipc import control_client

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that waits."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as started:
        yield started
        started.kill()


def test_a_process_that_is_not_the_daemon_any_more_gets_no_signal(
    process: subprocess.Popen[bytes],
) -> None:
    """The pid may be that of another process by now: then the daemon has exited."""
    assert control_client.terminate(process.pid, 1, lambda: False)
    assert process.poll() is None
    assert control_client.terminate(process.pid, 30, lambda: True)
    assert process.wait(30) == -signal.SIGTERM


def test_the_peer_is_the_process_that_listens(tmp_path: pathlib.Path) -> None:
    """Not the one that has bound the socket; a second listen(2) changes it."""
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        with pytest.raises(ConnectionRefusedError):
            control_client.peer(path)
        listener.listen()
        child = os.fork()
        if not child:
            listener.listen()
            os._exit(0)
        os.waitpid(child, 0)
        assert control_client.peer(path) == (child, os.geteuid())
        listener.listen()
        assert control_client.peer(path) == (os.getpid(), os.geteuid())
