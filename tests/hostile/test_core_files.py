"""A crash leaves no core file, which would have the data of clients and private keys of TLS."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.jobs import ask, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon


@pytest.fixture
def _core_files_wanted() -> Iterator[None]:
    """Let every process that the test starts write core files."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if before[1] != resource.RLIM_INFINITY:
        pytest.skip("core files are limited already")
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.usefixtures("_core_files_wanted")
def test_a_crash_leaves_no_core_file(daemon: MakeDaemon) -> None:
    """Of a handler or of a program, whatever the limit of the user who has started the daemon."""
    commands = {"crsh": shell("kill -SEGV $$", on_error="crashed"), "hard": shell("ulimit -Hc")}
    served = daemon(commands=commands, daemon={"working_directory": "."})
    assert ask(served, b"hardcrshquit") == b"0\ncrashedquit"
    served.allow_lost_handlers = True
    served.served()
    for pid in (served.handlers[0], served.pid, served.logger):
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    os.kill(served.handlers[0], signal.SIGSEGV)
    served.wait_for("handler.lost")
    assert not [name for name in os.listdir(served.folder) if name.startswith("core")]
