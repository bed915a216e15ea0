"""Forking, as far as a test can do it in its own process."""

from __future__ import annotations

import os
import signal
import sys

from tests.support.processes import run
from tetrad.ipc.fds import EVENTS_WRITE
from tetrad.system import fork

DEFECT = f"""
import os
from tetrad.ipc.log_protocol import log_child_failure
from tetrad.system.fork import fork_each
reads, writes = map(os.dup, os.pipe())
os.dup2(writes, {EVENTS_WRITE})
[pid], _ = fork_each([(50, lambda: {{}}["gone"], ())], 6, 50, log_child_failure)
assert os.waitpid(pid, 0)[1] == 70 << 8
print(os.read(reads, 4096).decode())
"""


def blocked() -> set[int]:
    """Return which of the master's signals are blocked."""
    return {
        int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    } & fork.MASTER_SIGNALS


def test_signals_are_unblocked_after_forking() -> None:
    """Even without a task."""
    assert fork.fork_each([], 6, 0, print) == ([], None)
    assert blocked() == set()


def test_signals_that_the_caller_blocks_stay_blocked() -> None:
    """Forking restores the previous signal mask."""
    with fork.signals_blocked:
        fork.fork_each([], 6, 0, print)
        assert blocked() == fork.MASTER_SIGNALS
    assert blocked() == set()


def test_a_child_that_fails_logs_the_exception() -> None:
    """A defect ends one session, and the log has the exception and its place."""
    ran = run([sys.executable, "-c", DEFECT], dict(os.environ))
    assert "error handler.failed" in ran.out
    assert """"error":"KeyError('gone')","place":"fork.py:""" in ran.out
