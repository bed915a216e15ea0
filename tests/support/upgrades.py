"""Upgrades of a daemon under test: requested, checked, and paused at a point of their course."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tests.support.clients import ANSWER
from tests.support.control_requests import request_upgrade
from tests.support.processes import children_of, in_background, title_of, until

if TYPE_CHECKING:
    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.installations import Installation
    from tetrad.ipc.control_messages import Upgraded

UpgradableDaemon: TypeAlias = "tuple[Daemon, Installation]"

Edit = tuple[str, str, str]
"""A file of the package, a text in it, and its replacement."""

SHORT_TRIAL: Edit = (
    "master/helper_process.py",
    "time.monotonic() + HELPER_TIMEOUT_SECONDS",
    'time.monotonic() + (0.5 if self._task == "the upgrade trial" else HELPER_TIMEOUT_SECONDS)',
)
"""Other helpers, such as the config reader of a reload, keep their time."""

HANGING_TRIAL: Edit = (
    "helpers/upgrade_checks.py",
    "import marshal\n",
    "import time\ntime.sleep(1000)\nimport marshal\n",
)

ECHO = [{"port": 0}, {"port": 0, "service": "echo"}]


class Upgradable(Protocol):
    """Installs a copy of the package, and starts a daemon that uses it."""

    def __call__(self, *edits: Edit, **settings: object) -> tuple[Daemon, Installation]:
        """Return the daemon and the installation; the edits are in the version that is started."""
        ...


def upgrade(served: Daemon) -> Upgraded:
    """Request an upgrade, and check that it succeeds."""
    outcome = request_upgrade(served)
    assert outcome.errors is None, outcome
    return outcome


def upgrade_by_command(served: Daemon) -> str:
    """Run `tetrad upgrade`, check that it succeeds, and return its output."""
    ran = served.tetrad("upgrade")
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def assert_fails(served: Daemon, status: int, *words: str) -> None:
    """Check that an upgrade fails with these words, and that the old version keeps serving."""
    before = served.status()
    ran = served.tetrad("upgrade")
    assert ran.status == status, ran
    assert all(word in ran.err for word in words), ran.err
    assert_untouched(served, before)


def assert_untouched(served: Daemon, before: dict[str, Any]) -> None:
    """Check that the same version runs with the same sessions, and serves new clients."""
    after = served.status()
    same = ("pid", "version", "started", "upgrades", "listeners", "sessions")
    ages = {"sessions": [{**one, "age": 0} for one in before["sessions"]]}
    now = {"sessions": [{**one, "age": 0} for one in after["sessions"]]}
    assert {k: (after | now)[k] for k in same} == {k: (before | ages)[k] for k in same}
    assert ANSWER.fullmatch(served.connect().ask())


def ask(served: Daemon, request: bytes) -> Client:
    """Send a request to the control socket, and return the connection."""
    client = served.connect_to_path("control.sock")
    client.send(request + b"\n")
    return client


def trial_of(served: Daemon) -> int:
    """Return the pid of the upgrade trial, a child of its supervisor; 0 if none runs."""
    trials = [pid for child in children_of(served.pid) for pid in children_of(child)]
    return next((pid for pid in trials if "tetrad.helpers.upgrade_trial" in title_of(pid)), 0)


class PausedTrial:
    """An upgrade whose trial waits until `resume` or `finish` is called."""

    def __init__(self, served: Daemon, installed: Installation) -> None:
        self._resume_file = os.path.join(served.folder, "go")
        wait = (
            f"import os, time\nwhile not os.path.exists({self._resume_file!r}): time.sleep(0.01)\n"
        )
        self.version = installed.publish(
            ("helpers/upgrade_checks.py", "import marshal\n", wait + "import marshal\n")
        )
        self.request = ask(served, b"upgrade")
        self.process = served.watch(until(lambda: trial_of(served), "the upgrade trial"))

    def resume(self) -> None:
        """Let the trial continue."""
        with open(self._resume_file, "w", encoding="ascii"):
            pass

    def finish(self) -> dict[str, Any]:
        """Let the trial continue; return the answer to the upgrade request."""
        self.resume()
        return dict(json.loads(self.request.read_all()))


class PausedUpgrade:
    """An upgrade that pauses at the start of the new version, until `resume` is called."""

    def __init__(self, served: Daemon, installed: Installation) -> None:
        self._paused_file = os.path.join(served.folder, "begun")
        self._resume_file = os.path.join(served.folder, "go")
        pause = (
            f"    open({self._paused_file!r}, 'w')\n"
            f"    while not os.path.exists({self._resume_file!r}):\n        time.sleep(0.01)\n"
        )
        self.version = installed.publish(("master/process.py", "    gc.disable()\n", pause))
        self.outcome: list[bytes] = []
        client = ask(served, b"upgrade")
        self._reader = in_background(lambda: self.outcome.append(client.read_all()))
        until(lambda: os.path.exists(self._paused_file), "the new version")

    def resume(self) -> dict[str, Any]:
        """Let the new version continue; return the answer to the upgrade request."""
        with open(self._resume_file, "w", encoding="ascii"):
            pass
        self._reader.join()
        return dict(json.loads(self.outcome[0] or b"{}"))
