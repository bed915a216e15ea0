"""A limit of processes that is used up, and a start as process 1."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import run
from tests.support.system_programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

UID = "54321"
"""A user without other processes."""

HINT = "raise the limit of processes (ulimit -u, or LimitNPROC= and TasksMax= in the unit)"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def limited(prepared: MakeDaemon, public_folder: str) -> Iterator[Daemon]:
    """Return a daemon in a folder of the user."""
    require("prlimit", "setpriv")
    with tempfile.TemporaryDirectory(dir=public_folder) as folder:
        os.chown(folder, int(UID), int(UID))
        served = prepared(folder=folder, commands={"prog": {"run": ["true"], "on_error": "sorry"}})
        os.chmod(folder, 0o755)  # noqa: S103 - also for the user
        yield served
        served.finish()


def start(daemon: Daemon, processes: int) -> tuple[int, str, str]:
    """Start a daemon as the user, who may have this many processes."""
    user = (f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
    command = ["prlimit", f"--nproc={processes}", "setpriv", *user, sys.executable, "-m", "tetrad"]
    return run([*command, "start", "-c", daemon.file], daemon.environment)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_start_without_processes_says_which_limit(limited: Daemon, processes: int) -> None:
    """Whichever of its forks fails."""
    ran = start(limited, processes)
    assert ran[::2] == (1, f"tetrad: fork: resource temporarily unavailable; {HINT}\n")


def test_a_daemon_without_processes_says_which_limit(limited: Daemon) -> None:
    """In the log, and in the answers of commands; clients wait until there are processes again."""
    status, out, err = start(limited, 3)
    assert status == 0, err
    limited.adopt(out)
    client = limited.served()
    client.send(b"prog")
    assert client.read(5) == b"sorry"
    assert limited.wait_for("client.command", command="prog")["error"].endswith(f"; {HINT}")
    refused = limited.connect()
    line = limited.wait_for("server.overloaded")
    assert (line["error"], line["why"]) == ("resource temporarily unavailable", HINT)
    asked = limited.tetrad("status")
    assert f"cannot fork to answer: resource temporarily unavailable; {HINT}" in asked.err
    reload = limited.tetrad("reload")
    assert (reload.status, HINT in reload.err) == (1, True)
    refused.close()
    assert client.quit() == b"quit"
    reload = limited.tetrad("reload")
    assert (reload.status, HINT in reload.err) == (1, True)
    assert "the configuration reader did not start: fork: " in reload.err


def test_process_1_starts_no_daemon(prepared: MakeDaemon) -> None:
    """The daemon would end with it."""
    require("unshare")
    asked = prepared()
    apart = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "tetrad"]
    ran = run([*apart, "start", "-c", asked.file], asked.environment)
    assert ran.status == 1
    assert re.search(r"process 1 cannot start a daemon, .*: use tetrad run\n", ran.err)
    assert not os.path.exists(asked.pidfile)
