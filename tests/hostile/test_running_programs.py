"""How many programs of a command run at once, whatever ends them."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.jobs import WAIT, ask, shell
from tests.support.processes import children_of, title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon


def commands(folder: Path, most: int = 2) -> dict[str, Any]:
    """Return commands that wait for a file; `wait` creates one when it runs."""
    return {
        "wait": shell(f"cd {folder}; touch ready$$; {WAIT}", max_running=most, on_error="busy"),
        "othr": shell(f"cd {folder}; {WAIT}; echo done", max_running=1),
    }


class Running:
    """The programs of the command `wait`, of which two run at once."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self._daemon = daemon
        self._folder = folder

    def add(self) -> Client | None:
        """Return a client whose program has begun; None if its answer is `busy`."""
        before, client = self._count(), self._daemon.connect()
        client.send(b"wait")
        until(
            lambda: self._count() > before or select.select([client.socket], [], [], 0)[0],
            "the program, or an answer",
        )
        return client if self._count() > before else None

    def _count(self) -> int:
        return len(list(self._folder.glob("ready*")))


@pytest.fixture
def served(daemon: MakeDaemon, tmp_path: Path) -> Iterator[Daemon]:
    """Return a daemon with these commands."""
    yield daemon(commands=commands(tmp_path))
    (tmp_path / "go").touch()


@pytest.fixture
def running(served: Daemon, tmp_path: Path) -> Running:
    """Return programs that run, as many as may."""
    running = Running(served, tmp_path)
    assert running.add()
    assert running.add()
    return running


def test_only_so_many_programs_of_a_command_run(served: Daemon, tmp_path: Path) -> None:
    """For all clients together; other commands have counts of their own."""
    running = Running(served, tmp_path)
    first = running.add()
    assert first
    assert running.add()
    assert ask(served, b"waitquit") == b"busyquit"
    line = served.wait_for("client.command", command="wait")
    assert (line["level"], line["error"]) == ("warning", "max_running (2) is reached")
    other = served.connect()
    other.send(b"othr")
    first.reset()
    until(running.add, "a free place")
    assert ask(served, b"waitquit") == b"busyquit"
    (tmp_path / "go").touch()
    assert other.read(5) == b"done\n"
    until(lambda: ask(served, b"waitquit") == b"quit", "a free place")


@pytest.mark.parametrize("victim", ["handler", "supervisor", "program"])
def test_a_killed_process_does_not_keep_a_place(
    served: Daemon, running: Running, victim: str
) -> None:
    """It is free when all that the job has started has ended."""
    served.allow_lost_handlers = True
    handler = served.handlers[0]
    (supervisor,) = children_of(handler)
    assert title_of(supervisor).startswith("tetrad: job supervisor")
    (program, *_) = children_of(supervisor)
    pid = {"handler": handler, "supervisor": supervisor, "program": program}[victim]
    os.kill(pid, signal.SIGKILL)
    until(running.add, "a free place")
    assert running.add() is None


@pytest.mark.parametrize("command", ["reload", "upgrade"])
def test_programs_that_run_count_after_a_change(
    served: Daemon, running: Running, tmp_path: Path, command: str
) -> None:
    """For the new limit."""
    served.configure(commands=commands(tmp_path, most=3))
    assert served.tetrad(command).status == 0
    assert running.add()
    assert running.add() is None
