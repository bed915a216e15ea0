"""Another process of the daemon's user writes to its files in memory."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import until
from tetrad.ipc import fds

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon


def opened(pid: int, number: int) -> int:
    """Open a file of another process through /proc."""
    return os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)


@pytest.mark.quick
def test_the_runtime_configuration_cannot_be_written_to(daemon: MakeDaemon) -> None:
    """At rest it is empty, and what an upgrade reads there is code to the next version."""
    served = daemon()
    served.served()
    for _ in range(2):
        fd = opened(served.pid, fds.RUNTIME_CONFIG)
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        os.close(fd)
        assert served.tetrad("upgrade").status == 0


@pytest.mark.quick
def test_the_log_counters_keep_their_size(daemon: MakeDaemon) -> None:
    """A file that grows would take the memory of the machine; a short one would be no counter."""
    served = daemon()
    fd = opened(served.pid, fds.LOG_COUNTERS)
    for size in (0, sys.maxsize):
        with pytest.raises(PermissionError):
            os.truncate(fd, size)
    os.close(fd)
    assert served.served().quit() == b"quit"
    until(lambda: served.status()["log"]["written"], "counted lines")
