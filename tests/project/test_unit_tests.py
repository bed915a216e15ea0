"""Unit tests stay in their own process: other calls fail the test before they have an effect."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable

NO_PROGRAM = "/no/such/program"


@pytest.mark.parametrize(
    "call",
    [
        lambda: os.fork() or os._exit(0),
        lambda: os.execv(NO_PROGRAM, [NO_PROGRAM]),
        lambda: os.posix_spawn(NO_PROGRAM, [NO_PROGRAM], {}),
        lambda: os.system("true"),  # noqa: S605, S607 - it does not run
        lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        socket.socket,
        lambda: socket.getaddrinfo("localhost", 1),
    ],
    ids=["fork", "exec", "spawn", "system", "run", "socket", "getaddrinfo"],
)
def test_a_unit_test_must_not_leave_its_process(call: Callable[[], object]) -> None:
    """The failure is no Exception, so that no handler of the tested code hides it."""
    with isolated(), pytest.raises(pytest.fail.Exception, match="move the test") as failure:
        call()
    assert not isinstance(failure.value, Exception)


def test_a_unit_test_may_use_pipes_and_threads() -> None:
    """They end with the test."""
    with isolated():
        for fd in os.pipe():
            os.close(fd)
        thread = threading.Thread(target=bool)
        thread.start()
        thread.join()


def test_other_tests_are_not_restricted() -> None:
    """This one starts a process and creates a socket."""
    with isolated():
        pass
    assert not subprocess.run([sys.executable, "-c", ""], check=False).returncode
    socket.socket().close()
