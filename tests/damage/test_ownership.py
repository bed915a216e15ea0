"""Root changes the owner or the mode of no path: who owns the folder could lead it elsewhere."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import run

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

NOBODY = pwd.getpwnam("nobody")

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="install strace")

BY_PATH = re.compile(r"\b(chown|lchown|fchownat|chmod|fchmodat)\(")


def start_under_strace(asked: Daemon) -> list[str]:
    """Start the daemon, and return the calls of the launcher that change an owner or a mode."""
    seen = os.path.join(asked.folder, "calls")
    guard = ["strace", "-qq", "-e", "signal=none", "-o", seen]
    guard += ["-e", "trace=chown,lchown,fchown,fchownat,chmod,fchmod,fchmodat"]
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    ran = run([*guard, *command], asked.environment)
    assert ran.status == 0, ran
    asked.adopt(ran.out)
    with open(seen, encoding="utf-8") as file:
        return file.read().splitlines()


@needs_strace
def test_no_owner_and_no_mode_is_changed_by_path(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """With all files in a folder of the daemon's user, and a group for the control socket."""
    asked = prepared(
        folder=nobodys_folder,
        daemon={"user": "nobody", "control_group": "daemon"},
        listen=[{"port": 0}, {"address": "unix:t.sock"}],
    )
    calls = start_under_strace(asked)
    assert [call for call in calls if BY_PATH.search(call)] == []
    owners = {
        name: os.stat(os.path.join(asked.folder, name)).st_uid
        for name in ("tetrad.pid", "control.sock", "t.sock", "tetrad.log")
    }
    user = NOBODY.pw_uid
    assert owners == {"tetrad.pid": 0, "control.sock": 0, "t.sock": user, "tetrad.log": user}


def test_the_pidfile_stays_roots(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """As start-stop-daemon demands; at a stop the daemon's user removes it from the folder."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"})
    status = os.stat(served.pidfile)
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    served.stop()
    assert not os.path.exists(served.pidfile)


def test_a_unix_listener_needs_a_folder_of_the_daemons_user(
    prepared: MakeDaemon, nobodys_folder: str
) -> None:
    """It is created as that user, as by a reload; the message names the user."""
    os.mkdir(os.path.join(nobodys_folder, "root"), 0o755)
    asked = prepared(
        folder=nobodys_folder,
        daemon={"user": "nobody"},
        listen=[{"address": "unix:root/t.sock"}],
    )
    ran = asked.tetrad("start")
    expected = f"user nobody needs write access to directory {nobodys_folder}/root"
    assert (ran.status, ran.err) == (
        4,
        f"tetrad: unix:{nobodys_folder}/root/t.sock: permission denied; {expected}\n",
    )
    assert set(os.listdir(nobodys_folder)) == {"home", "root", "tetrad.yaml"}
