"""The default places of the system's file, for every caller; and default folders of other users.

The system's folders are those of a mount namespace: nothing of this machine changes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.processes import environment, run

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.processes import Ran

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare(1)"
)

SETUP = """
set -eu
folder=$1 python=$2; shift 2
mount -t tmpfs tmpfs "$folder"; mkdir "$folder/upper" "$folder/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/upper,workdir=$folder/work" overlay /etc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir -p /etc/tetrad
printf 'listen: [{port: 0}]\\ndaemon: {user: nobody, control_group: daemon}\\n' \
    >/etc/tetrad/tetrad.yaml
umask 077
root() { "$python" -m tetrad "$@"; }
other() { setpriv --reuid=54321 --regid=54321 --clear-groups "$python" -m tetrad "$@"; }
member() { setpriv --reuid=54321 --regid=54321 --groups=daemon "$python" -m tetrad "$@"; }
say() { set +e; "$@"; echo "$* -> $?"; set -e; }
trap 'root stop >/dev/null 2>&1 || true' EXIT
cd /
"""


def in_namespace(tmp_path: pathlib.Path, script: str) -> Ran:
    """Run a script in a mount namespace with the system's folders of its own."""
    folder = tmp_path / "overlay"
    folder.mkdir()
    os.chmod(tmp_path, 0o755)  # noqa: S103 - all users may read it
    command = ["unshare", "-m", "sh", "-c", SETUP + script, "sh", str(folder), sys.executable]
    return run(command, environment(str(tmp_path / "home")))


@needs_namespaces
def test_every_user_finds_the_systems_daemon(tmp_path: pathlib.Path) -> None:
    """Nobody is told that it does not run; who may not ask is told that; umask 077 is no matter."""
    ran = in_namespace(
        tmp_path,
        """
        say other status
        root start >/dev/null 2>&1
        for user in other member root; do say $user status; done
        for command in stop reload upgrade; do say other $command; say member $command; done
        say member explain 127.0.0.1
        say root reload
        rm /run/tetrad/tetrad.pid
        say other stop
        rm -r /run/tetrad
        say other stop
        say root stop
        say other stop
        """,
    )
    said = [line for line in ran.out.splitlines() if " -> " in line]
    assert said == [
        "other status -> 3",
        "other status -> 4",
        "member status -> 0",
        "root status -> 0",
        "other stop -> 4",
        "member stop -> 4",
        "other reload -> 4",
        "member reload -> 4",
        "other upgrade -> 4",
        "member upgrade -> 4",
        "member explain 127.0.0.1 -> 0",
        "root reload -> 0",
        "other stop -> 4",
        "other stop -> 4",
        "root stop -> 0",
        "other stop -> 0",
    ], ran
    assert "not running (pidfile /run/tetrad/tetrad.pid)" in ran.out
    assert "permission denied: user id 54321 is not root or the daemon's user" in ran.err


@needs_namespaces
def test_the_owners_of_the_default_files(tmp_path: pathlib.Path) -> None:
    """The folders are the daemon's user's, the pidfile stays root's."""
    ran = in_namespace(
        tmp_path,
        """
        root start >/dev/null 2>&1
        stat -c '%n %U %a' /run/tetrad /run/tetrad/* /var/log/tetrad /var/log/tetrad/*
        root stop >/dev/null 2>&1
        ls -A /run/tetrad
        """,
    )
    assert ran.out.splitlines() == [
        "/run/tetrad nobody 755",
        "/run/tetrad/control.sock root 666",
        "/run/tetrad/tetrad.pid root 600",
        "/var/log/tetrad nobody 755",
        "/var/log/tetrad/tetrad.log nobody 640",
    ], ran


class Homeless(NamedTuple):
    """A user without a name and a home, whose default folders are in /tmp."""

    file: str
    home: str

    def tetrad(self, *arguments: str, **variables: str) -> Ran:
        """Run a command as this user."""
        become = ["setpriv", f"--reuid={self.uid}", "--regid=nogroup", "--clear-groups"]
        variables = {"PATH": os.environ["PATH"], **variables}
        command = [*become, sys.executable, "-m", "tetrad", *arguments, "-c", self.file]
        return run(command, variables, cwd="/")

    @property
    def uid(self) -> int:
        """The user's id."""
        return int(self.home.rpartition("-")[2])


@pytest.fixture
def homeless(nobodys_folder: str) -> Iterator[Homeless]:
    """Return a user without a home."""
    file = os.path.join(nobodys_folder, "tetrad.yaml")
    with open(file, "w", encoding="ascii") as stream:
        stream.write("listen: [{port: 0}]\n")
    os.chmod(file, 0o644)
    made = Homeless(file, f"/tmp/tetrad-{100_000 + os.getpid()}")  # noqa: S108 - removed below
    yield made
    made.tetrad("stop")
    shutil.rmtree(made.home, ignore_errors=True)


def test_a_temporary_home_is_private(homeless: Homeless) -> None:
    """Whatever the umask is."""
    before = os.umask(0)
    try:
        ran = homeless.tetrad("start")
    finally:
        os.umask(before)
    assert ran.status == 0, ran
    status = os.stat(homeless.home)
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (homeless.uid, 0o700)
    assert homeless.tetrad("stop").out.startswith("tetrad: stopped")


@pytest.mark.parametrize(("user", "mode"), [("nobody", 0o755), ("", 0o777)])
def test_a_temporary_home_of_a_stranger_is_refused(
    homeless: Homeless, user: str, mode: int
) -> None:
    """Or one that others can write to; no command uses it."""
    os.mkdir(homeless.home)
    os.chown(homeless.home, pwd.getpwnam(user).pw_uid if user else homeless.uid, -1)
    os.chmod(homeless.home, mode)
    for command in ("start", "status", "stop", "check"):
        ran = homeless.tetrad(command)
        assert (ran.status, ran.out) == (4, "")
        assert ran.err == (
            f"tetrad: {homeless.home}: not a folder of this user alone;"
            " set HOME or XDG_STATE_HOME\n"
        )
    assert os.listdir(homeless.home) == []


def test_a_login_sessions_folder_is_not_used(homeless: Homeless, nobodys_folder: str) -> None:
    """It is removed at the end of the session, and cron has none; any other XDG folder is used."""
    state = os.path.join(nobodys_folder, "state")
    os.mkdir(state, 0o700)
    os.chown(state, homeless.uid, -1)
    session = {"XDG_RUNTIME_DIR": f"/run/user/{homeless.uid}", "XDG_STATE_HOME": state}
    assert homeless.tetrad("start", **session).status == 0
    assert homeless.tetrad("status", XDG_STATE_HOME=state).status == 0
    other = {"XDG_RUNTIME_DIR": "/nowhere", "XDG_STATE_HOME": state}
    ran = homeless.tetrad("stop", **other)
    assert (ran.status, ran.out.partition("(")[0]) == (0, "tetrad: stopped ")
