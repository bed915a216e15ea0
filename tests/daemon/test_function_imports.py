"""Which commands import the modules of functions that answer commands, and as which user."""

from __future__ import annotations

import pwd
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.commands import run_here

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

MODULE = """
import os
with open(os.environ["NOTE"], "a") as note:
    note.write(f"{os.getuid()}\\n")
def reply(context): return "hello"
"""


def test_only_what_prepares_a_daemon_imports_and_as_its_user(
    prepared: MakeDaemon, nobodys_folder: str, public_folder: str
) -> None:
    """Not a command that asks or stops the daemon, whoever runs it."""
    folder, uid = Path(tempfile.mkdtemp(dir=public_folder)), pwd.getpwnam("nobody").pw_uid
    folder.chmod(0o755)
    note = Path(nobodys_folder) / "imported"
    (folder / "answers.py").write_text(MODULE)
    served = prepared(
        folder=nobodys_folder,
        daemon={"user": "nobody"},
        commands={"func": {"call": "answers:reply"}},
    )
    served.environment |= {"TETRAD_PASS_ENVIRONMENT": "NOTE", "NOTE": str(note)}
    served.environment["PYTHONPATH"] = str(folder)
    expected = ""
    for command, imports in (
        ("check", 1),
        ("start", 1),
        ("status", 0),
        ("logs", 0),
        ("explain 127.0.0.1", 0),
        ("client quit", 0),
        ("reload", 1),
        ("restart", 1),
        ("upgrade", 1),
        ("stop", 0),
    ):
        ran = served.tetrad(*command.split())
        assert ran.status == 0, ran
        if command in {"start", "restart"}:
            served.adopt(ran.out)
        expected += f"{uid}\n" * imports
        assert note.read_text() == expected, command


def test_a_function_that_cannot_be_called_is_refused_before_anything_changes(
    daemon: MakeDaemon, tmp_path: Path
) -> None:
    """With exit status 78; the daemon can be asked and stopped all the same."""
    served = daemon()
    served.environment["PYTHONPATH"] = str(tmp_path)
    served.configure(commands={"func": {"call": "no_such:reply"}})
    for command in ("check", "restart", "reload"):
        ran = run_here(served, command)
        assert (ran.status, ran.err.count("commands.func.call: no module named no_such")) == (78, 1)
    assert run_here(served, "status").status == 0
    assert run_here(served, "stop").status == 0
    assert run_here(served, "start").status == 78
