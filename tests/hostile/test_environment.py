"""The variables of whoever starts the daemon: what programs, functions and handlers can learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.jobs import ask, shell

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

FUNCTION = """
import os

found = os.environ.get("SECRET"), os.environ["TETRAD_SITE"], os.environ["WANTED"]
if found != (None, "a", "b"):
    raise ImportError(found)

def names(context):
    return " ".join(os.environ)
"""


@pytest.fixture
def served(prepared: MakeDaemon, tmp_path: Path) -> Daemon:
    """Return a daemon whose starter has a secret in the environment."""
    (tmp_path / "variables.py").write_text(FUNCTION)
    daemon = prepared()
    daemon.environment |= {"PYTHONPATH": str(tmp_path), "SECRET": "x", "TETRAD_SITE": "a"}
    passed = daemon.environment.get("TETRAD_PASS_ENVIRONMENT", "")
    daemon.environment |= {"WANTED": "b", "TETRAD_PASS_ENVIRONMENT": f"WANTED {passed}"}
    daemon.configure(
        commands={
            "call": {"call": "variables:names"},
            "prog": shell("tr '\\0' '\\n' </proc/$PPID/environ"),
        }
    )
    return daemon.start()


@pytest.mark.parametrize("command", [b"prog", b"call"])
def test_commands_do_not_see_the_variables_of_the_starter(served: Daemon, command: bytes) -> None:
    """Neither their own environment nor that of their parent has more than the list."""
    seen = ask(served, command + b"quit").decode()
    assert "PATH" in seen
    assert "TETRAD_SITE" in seen
    assert "WANTED" in seen
    assert "SECRET" not in seen


def test_functions_are_checked_with_the_environment_of_the_daemon(served: Daemon) -> None:
    """An import that needs another variable fails before the daemon does."""
    del served.environment["WANTED"]
    ran = served.tetrad("check")
    assert ran.status == 78
    assert "commands.call.call" in ran.err


def test_no_process_of_the_daemon_has_the_variables_of_the_starter(served: Daemon) -> None:
    """Master, logger and handler."""
    served.served()
    assert len(served.processes) == 3
    for pid in served.processes:
        with open(f"/proc/{pid}/environ", encoding="utf-8") as file:
            names = [one.partition("=")[0] for one in file.read().split("\0")]
        assert "TETRAD_SITE" in names
        assert "SECRET" not in names
