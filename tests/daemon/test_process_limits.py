"""A limit of processes that is used up, and a start as process 1."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import run, status_of, until
from tests.support.system_programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Ran

FIRST_UID = 54321
"""The users from here on have no other processes."""

HINT = "raise the limit of processes (ulimit -u, or LimitNPROC= and TasksMax= in the unit)"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def user() -> int:
    """Return a user without processes: a zombie of a test before counts too."""
    return next(uid for uid in itertools.count(FIRST_UID) if not processes_of(uid))


@pytest.fixture
def limited(prepared: MakeDaemon, public_folder: str, user: int) -> Iterator[Daemon]:
    """Return a daemon in a folder of the user."""
    require("prlimit", "setpriv")
    with tempfile.TemporaryDirectory(dir=public_folder) as folder:
        os.chown(folder, user, user)
        served = prepared(folder=folder, commands={"prog": {"run": ["true"], "on_error": "sorry"}})
        os.chmod(folder, 0o755)  # noqa: S103 - also for the user
        yield served
        served.finish()


def processes_of(uid: int) -> list[int]:
    """Return the processes of a user, zombies included."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if status_of(int(name))["Uid"].startswith(f"{uid}\t"):
                found.append(int(name))
    return found


def start(daemon: Daemon, user: int, *limit: str) -> Ran:
    """Start a daemon as the user, with a limit of prlimit(1)."""
    command = ["prlimit", *limit, sys.executable, "-m", "tetrad", "start", "-c", daemon.file]
    return run_as(user, *command, environment=daemon.environment)


def run_as(user: int, *command: str, environment: dict[str, str] | None = None) -> Ran:
    """Run a command as the user."""
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    return run([*become, *command], environment or dict(os.environ))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_start_without_processes_says_which_limit(
    limited: Daemon, user: int, processes: int
) -> None:
    """Whichever of its forks fails."""
    ran = start(limited, user, f"--nproc={processes}")
    assert ran[::2] == (1, f"tetrad: fork: resource temporarily unavailable; {HINT}\n")


def test_a_daemon_without_processes_says_which_limit(limited: Daemon, user: int) -> None:
    """In the log, and in the answers of commands; clients wait until there are processes again."""
    started = start(limited, user)
    assert started.status == 0, started.err
    limited.adopt(started.out)
    running = {limited.pid, limited.logger}
    until(lambda: set(processes_of(user)) == running, "the processes of the start are gone")
    ran = run_as(user, "prlimit", f"--pid={limited.pid}", "--nproc=3")
    assert ran.status == 0, ran.err
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
