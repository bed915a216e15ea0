"""A forked child that fails logs its exception."""

from __future__ import annotations

import os
import sys

from tests.support.processes import run
from tetrad.ipc.fds import EVENTS_WRITE

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


def test_a_child_that_fails_logs_the_exception() -> None:
    """A defect ends one session, and the log has the exception and its place."""
    ran = run([sys.executable, "-c", DEFECT], dict(os.environ))
    assert "error handler.failed" in ran.out
    assert """"error":"KeyError('gone')","place":"fork.py:""" in ran.out
