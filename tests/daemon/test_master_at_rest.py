"""A master that has nothing to do sleeps, and still notices handlers that die."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import status_of, until

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

SECONDS = 1.2
"""How long wakeups are counted."""

WAKEUPS = 2
"""How many there may be in that time: one a second."""

SOON_SECONDS = 0.1
"""How soon the place of a dead handler is free for a client that asks for it."""


def wakeups(pid: int) -> int:
    """Return how often a process has slept until now."""
    return int(status_of(pid)["voluntary_ctxt_switches"])


def is_at_rest(pid: int) -> bool:
    """Tell whether a process wakes hardly ever."""
    before = wakeups(pid)
    time.sleep(SECONDS)  # the time in which they are counted
    return wakeups(pid) - before <= WAKEUPS


@pytest.mark.parametrize("spare", [0, 2])
def test_the_master_wakes_once_a_second_at_most(daemon: MakeDaemon, spare: int) -> None:
    """With a client that says nothing, or with handlers that wait for clients."""
    served = daemon(handlers={"spare": spare})
    if not spare:
        served.served()
    until(lambda: is_at_rest(served.pid), "the master to rest")


def is_admitted(daemon: Daemon) -> bool:
    """Tell whether a new client is served."""
    try:
        return ANSWER.fullmatch(daemon.connect().ask()) is not None
    except ConnectionError:
        return False


@pytest.mark.alone
def test_a_master_at_rest_notices_a_dead_handler(daemon: MakeDaemon) -> None:
    """Within a second, and at once if a client needs the place."""
    served = daemon(limits={"clients": 1})
    served.allow_lost_handlers = True
    served.served()
    until(lambda: is_at_rest(served.pid), "the master to rest")
    os.kill(served.handlers[0], signal.SIGKILL)
    began = time.monotonic()
    until(lambda: is_admitted(served), "the place of the dead handler")
    assert time.monotonic() - began < 2 * SOON_SECONDS  # of a busy machine
    until(lambda: is_at_rest(served.pid), "the master to rest")
    os.kill(served.handlers[0], signal.SIGKILL)
    began = time.monotonic()
    served.wait_for("handler.lost", count=2)
    assert time.monotonic() - began < 2
