"""Helper processes and loggers that fail: how they ended, and what the operator can do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

import tetrad
from tests.support.clients import ANSWER
from tests.support.installations import Installation
from tests.support.processes import POLL_SECONDS, children_of, run, title_of, until
from tetrad.master.logger_supervisor import RESTART_SECONDS

if TYPE_CHECKING:
    import pathlib

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

HINT = "if Python or its packages were replaced, use tetrad restart"

TRIAL_IMPORT = "import marshal\n"
"""The first import of the upgrade trial: code before it runs at once."""


def start(prepared: MakeDaemon, folder: pathlib.Path) -> tuple[Daemon, Installation]:
    """Start a daemon from an installation in this folder."""
    installed = Installation(str(folder))
    served = prepared()
    served.environment |= installed.environment
    return served.start(), installed


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("import sys; sys.stderr.write('one\\ntwo\\n\\n'); sys.exit(3)", "with status 3: two"),
        ("raise ImportError('no such thing')", "with status 1: ImportError: no such thing"),
        ("import os; os._exit(4)", "with status 4; if"),
        ("import os; os.write(2, b'x' * 999_999 + b'\\nlast \\xff\\x1b'); os._exit(5)", "5: last"),
        ("import os; os._exit(0)", "with status 0"),
    ],
)
def test_a_failed_trial_is_reported_with_its_status_and_last_line(
    prepared: MakeDaemon, tmp_path: pathlib.Path, code: str, end: str
) -> None:
    """In the answer to the command and in the log; the old version keeps serving."""
    served, installed = start(prepared, tmp_path)
    installed.publish(("helpers/upgrade_trial.py", TRIAL_IMPORT, f"{code}\n{TRIAL_IMPORT}"))
    ran = served.tetrad("upgrade")
    assert ran.status == 1
    assert "not upgraded; the old version keeps serving: the upgrade trial exited " in ran.err
    assert end in ran.err
    assert HINT in ran.err
    assert end in served.wait_for("server.upgrade_failed")["errors"][0]
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_killed_trial_is_reported_with_its_signal(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """By its number and its name."""
    served, installed = start(prepared, tmp_path)
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n"
    installed.publish(("helpers/upgrade_trial.py", TRIAL_IMPORT, code + TRIAL_IMPORT))
    ran = served.tetrad("upgrade")
    assert "the upgrade trial was killed by signal 11 (Segmentation fault)" in ran.err


def test_a_helper_ends_with_the_master(prepared: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """Its supervisor kills it when nobody can read its answer any more."""
    served, _ = start(prepared, tmp_path)
    os.unlink(served.file)
    os.mkfifo(served.file)
    served.signal(signal.SIGHUP)

    def helpers() -> list[int]:
        found = [pid for child in children_of(served.pid) for pid in children_of(child)]
        return [pid for pid in found if "config_reader" in title_of(pid)]

    reader = served.watch(until(helpers, "the configuration reader")[0])
    served.signal(signal.SIGKILL)
    assert reader.has_ended(2)


# Release folders


def test_an_upgrade_becomes_the_version_of_the_command(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """It is in another release folder than the running one, and so are reloads from then on."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    served, _ = start(prepared, tmp_path / "one")
    client = served.served()
    release = Installation(str(tmp_path / "two"))
    version = release.publish()
    served.environment |= release.environment
    ran = served.tetrad("upgrade")
    assert (ran.status, ran.err) == (0, "")
    assert f"-> {version} (pid {served.pid}, 1 session kept)" in ran.out
    assert served.status()["version"] == version
    assert ANSWER.fullmatch(client.ask())
    shutil.rmtree(tmp_path / "one")
    assert served.tetrad("reload").status == 0
    logger = served.watch(served.logger)
    logger.signal(signal.SIGKILL)
    assert logger.has_ended()
    until(lambda: served.loggers, "the next logger")
    served.signal(signal.SIGUSR2)
    served.wait_for("server.upgraded", count=2)


def test_a_release_that_the_daemon_cannot_use_is_refused(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """The error says why, and the running version stays."""
    served, _ = start(prepared, tmp_path)
    client = served.connect_to_path("control.sock")
    client.send(b"upgrade-to /nowhere/python\0-I\0-c\0pass\n")
    (error,) = json.loads(client.read_all())["errors"]
    assert "cannot execute /nowhere/python: no such file or directory" in error
    assert ANSWER.fullmatch(served.connect().ask())


# The interpreter or the packages are gone


@pytest.fixture
def orphaned(prepared: MakeDaemon, tmp_path: pathlib.Path) -> Daemon:
    """Return a daemon whose interpreter has been removed since it started."""
    interpreter = tmp_path / "python"
    interpreter.symlink_to(sys.executable)
    folders = [os.path.dirname(tetrad.__path__[0]), os.path.dirname(msgspec.__path__[0])]
    served = prepared()
    environment = {**served.environment, "PYTHONPATH": os.pathsep.join(folders)}
    command = [str(interpreter), "-m", "tetrad", "start", "-c", served.file]
    ran = run(command, environment)
    assert ran.status == 0, ran.err
    served.adopt(ran.out)
    served.wait_for("server.listening")
    interpreter.unlink()
    return served


def test_a_reload_without_the_interpreter_names_the_restart(orphaned: Daemon) -> None:
    """And an upgrade to the version of the command, which has another interpreter, succeeds."""
    ran = orphaned.tetrad("reload")
    assert ran.status == 1
    assert "cannot execute " in ran.err
    assert f"python: no such file or directory; {HINT}\n" in ran.err
    orphaned.signal(signal.SIGUSR2)
    orphaned.wait_for("server.upgrade_failed")
    assert orphaned.tetrad("upgrade").status == 0
    assert orphaned.tetrad("reload").status == 0
    assert ANSWER.fullmatch(orphaned.connect().ask())


def test_the_status_shows_that_the_logger_is_gone(orphaned: Daemon) -> None:
    """Until one runs again."""
    logger = orphaned.watch(orphaned.logger)
    logger.signal(signal.SIGKILL)
    assert logger.has_ended()
    gone = "; the logger does not run: use tetrad restart\n"

    def is_gone() -> bool:
        return orphaned.status()["log"]["logger"] is None

    until(is_gone, "a status without the logger")
    tried = time.monotonic() + 3 * RESTART_SECONDS
    while time.monotonic() < tried:  # also while the next one is being tried
        assert is_gone()
        assert orphaned.connect().quit() == b"quit"
        time.sleep(POLL_SECONDS)
    assert gone in orphaned.tetrad("status").out
    assert orphaned.tetrad("upgrade").status == 0
    until(lambda: orphaned.status()["log"]["logger"] == orphaned.logger, "the logger")
    assert gone not in orphaned.tetrad("status").out
    orphaned.wait_for("log.lost", why=f"logger does not start; {HINT}")


def test_a_logger_counts_once_it_is_ready(orphaned: Daemon, tmp_path: pathlib.Path) -> None:
    """After a crash, its successor is a process first, which may not become a logger."""
    program, interpreter = tmp_path / "program", tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)
    interpreter.symlink_to(program)
    logger = orphaned.watch(orphaned.logger)
    logger.signal(signal.SIGKILL)
    (tried,) = until(
        lambda: [pid for pid in children_of(orphaned.pid) if title_of(pid) == "sleep 30"],
        "the start of the next logger",
    )
    assert orphaned.status()["log"]["logger"] is None
    interpreter.unlink()
    interpreter.symlink_to(sys.executable)
    orphaned.watch(tried).signal(signal.SIGKILL)
    until(lambda: orphaned.status()["log"]["logger"], "the logger")
    assert orphaned.status()["log"]["logger"] == orphaned.logger
