"""Upgrades that fail: the error is reported, and the old version keeps serving."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import descriptors_of, until
from tests.support.upgrades import (
    ECHO,
    HANGING_TRIAL,
    SHORT_TRIAL,
    ask,
    assert_fails,
    assert_untouched,
    trial_of,
    upgrade,
)

if TYPE_CHECKING:
    from tests.support.upgrades import Edit, Upgradable, UpgradableDaemon


# A new version that cannot start


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (("handler/session.py", "class Session:", "class Session"), "SyntaxError: expected"),
        (("logger/process.py", "import structlog", "import no_such_thing"), "No module named"),
        (("helpers/config_reader.py", "import sys", "from sys import nothing"), "ImportError"),
        (
            ("master/process.py", "self.title = ProcessTitle()", "raise ValueError('so')"),
            "ValueError: so",
        ),
        (("handler/fast_path.py", "now = time_ns()", "now = 1 // 0"), "ZeroDivisionError"),
        (
            ("master/handler_pool.py", "def restore_state(", "def restore_slate("),
            "'HandlerPool' object has no attribute 'restore_state'",
        ),
        (("master/connections.py", '"address",', '"address", "cipher",'), "a client with address"),
        (
            ("ipc/saved_state.py", "FORMAT = 3", "FORMAT = 4"),
            "cannot take over from version",
        ),
        (
            ("__init__.py", '"""tetrad', "tetrad"),
            "the upgrade trial exited with status 1: Syntax",
        ),
        (
            ("helpers/upgrade_trial.py", "signal.alarm(", "os._exit("),
            "the upgrade trial exited with status 120",
        ),
        (
            ("helpers/upgrade_checks.py", '"config": config', '"confit": config'),
            "the new version cannot start",
        ),
    ],
)
def test_a_version_that_cannot_start_changes_nothing(
    shared_upgradable: UpgradableDaemon, edit: Edit, word: str
) -> None:
    """The error is reported, the old version keeps serving, and a corrected version is accepted."""
    served, installed = shared_upgradable
    client = served.served()
    served.wait_for("client.command")
    before, held = served.status(), descriptors_of(served.pid)
    installed.publish(edit)
    if edit[0] == "__init__.py":  # no command can run either
        served.signal(signal.SIGUSR2)
    else:
        outcome = json.loads(ask(served, b"upgrade").read_all())
        assert word in outcome["errors"][0]
    assert word in served.wait_for("server.upgrade_failed")["errors"][0]
    version = installed.publish()
    assert_untouched(served, before)
    until(lambda: descriptors_of(served.pid).items() <= held.items(), "no descriptor leak")
    assert upgrade(served).version == version
    assert ANSWER.fullmatch(client.ask())


def test_the_command_reports_the_error_of_the_new_version(
    shared_upgradable: UpgradableDaemon,
) -> None:
    """The exit status is 1, not 78: the configuration file is valid."""
    served, installed = shared_upgradable
    installed.publish(
        ("master/process.py", "self.title = ProcessTitle()", "raise ValueError('so')")
    )
    assert_fails(served, 1, "not upgraded; the old version keeps serving", "ValueError: so")
    installed.publish()


def test_an_upgrade_trial_that_hangs_is_killed(upgradable: Upgradable) -> None:
    """The old version limits the time of the trial, and then kills it."""
    served, installed = upgradable(SHORT_TRIAL)
    served.wait_for("server.listening")
    installed.publish(HANGING_TRIAL)
    assert_fails(served, 1, "the upgrade trial took longer than")
    until(lambda: not trial_of(served), "the end of the trial")


def test_a_missing_interpreter_is_reported(upgradable: Upgradable) -> None:
    """If exec fails, the old version keeps its handlers, listeners and descriptors."""
    served, installed = upgradable(handlers={"spare": 1})
    until(lambda: served.status()["handlers"]["idle"] == 1, "a spare handler")
    spare = served.handlers
    installed.publish(
        ("helpers/upgrade_checks.py", 'exec_commands.command("master.process")', '["/no/python"]')
    )
    held = descriptors_of(served.pid)
    outcome = json.loads(ask(served, b"upgrade").read_all())
    assert outcome == {
        "errors": ["the new version cannot start: /no/python: no such file or directory"],
        "is_file_bad": False,
    }
    until(lambda: descriptors_of(served.pid).items() <= held.items(), "no descriptor leak")
    assert served.handlers == spare
    assert served.served()
    assert served.status()["upgrades"] == 0
    served.signal(signal.SIGUSR1)
    served.wait_for("log.reopened")


# A configuration file that cannot be applied


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"daemon": {"pidfile": "other.pid"}}, "daemon.pidfile cannot change"),
        ({"log": {"file": "missing/it.log"}}, "log.file: "),
        (
            {"listen": [*ECHO, {"address": "unix:t.sock"}]},
            "an upgrade cannot change listeners",
        ),
        ({"listen": [{"address": "unix:t.sock"}]}, "an upgrade cannot change listeners"),
        ({"limits": {"clients": "many"}}, "limits.clients"),
    ],
)
def test_a_file_that_cannot_be_applied_is_refused(
    shared_upgradable: UpgradableDaemon, settings: dict[str, object], word: str
) -> None:
    """As for a reload, the log and the answer to the command have the error."""
    served, installed = shared_upgradable
    before, pidfile = served.status(), served.settings["daemon"]["pidfile"]
    served.configure(**settings)
    installed.publish()
    outcome = json.loads(ask(served, b"upgrade").read_all())
    assert outcome["is_file_bad"] is (word != "log.file: ")
    assert word in outcome["errors"][0]
    assert word in served.wait_for("server.upgrade_failed")["errors"][0]
    served.configure(daemon={"pidfile": pidfile}, listen=ECHO, log={"file": "tetrad.log"})
    served.configure(limits={"clients": 1000})
    assert_untouched(served, before)


def test_an_invalid_file_is_exit_status_78(shared_upgradable: UpgradableDaemon) -> None:
    """`check` and `reload` exit with the same status."""
    served, _ = shared_upgradable
    served.configure(listen=[*ECHO, {"address": "unix:t.sock"}])
    assert_fails(served, 78, "restore them, run tetrad upgrade")
    served.configure(listen="nothing")
    assert served.tetrad("upgrade").status == 78
    served.configure(listen=ECHO)
