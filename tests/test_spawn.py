"""Forking, as far as it can be tried in a process of the tests' own."""

from __future__ import annotations

import os
import signal
import sys

from processes import run
from tetrad.ipc.fds import EVENTS_WRITE
from tetrad.system import fork

A_DEFECT = f"""
import os
from tetrad.ipc.log_protocol import log_handler_failure
from tetrad.system.fork import fork_each
reads, writes = map(os.dup, os.pipe())
os.dup2(writes, {EVENTS_WRITE})
[pid], _ = fork_each([(50, lambda: {{}}["gone"], ())], 6, 50, log_handler_failure)
assert os.waitpid(pid, 0)[1] == 70 << 8
print(os.read(reads, 4096).decode())
"""


def held() -> set[int]:
    """Return which of the master's signals are blocked now."""
    return {
        int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    } & fork.MASTER_SIGNALS


def test_signals_are_let_through_after_a_row_of_forks() -> None:
    """Even if there was nobody to fork for."""
    assert fork.fork_each([], 6, 0, print) == ([], None)
    assert held() == set()


def test_signals_that_somebody_holds_stay_held() -> None:
    """A row of forks ends its own hold, not that of who asked for it."""
    with fork.signals_blocked:
        fork.fork_each([], 6, 0, print)
        assert held() == fork.MASTER_SIGNALS
    assert held() == set()


def test_a_child_that_fails_tells_how() -> None:
    """A defect costs one client its session, and the log has what is needed to find it."""
    ran = run([sys.executable, "-c", A_DEFECT], dict(os.environ))
    assert "error handler.failed" in ran.out
    assert """"error":"KeyError('gone')","place":"fork.py:""" in ran.out
