"""The checks before a start and before a stop are made as the user who will serve."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import environment, files_below, run

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Ran

NOT_STOPPED = "tetrad: not stopped, because the daemon could not start again; "

BECOME_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@pytest.fixture
def asked(prepared: MakeDaemon, nobodys_folder: str) -> Daemon:
    """Return a daemon that is not running, in a folder of nobody; root gives the commands."""
    return prepared(folder=nobodys_folder)


def roots(folder: str, name: str) -> str:
    """Make a folder that only root can write to, and return its path."""
    path = os.path.join(folder, name)
    os.mkdir(path, 0o755)
    return path


def faults(asked: Daemon, *options: str) -> list[str]:
    """Return what `tetrad check` refuses."""
    ran = asked.tetrad("check", *options)
    assert (ran.status, ran.out) == (78, ""), ran
    return [line.removeprefix("tetrad: ") for line in ran.err.splitlines()]


def set_up_faults(asked: Daemon) -> list[str]:
    """Configure a daemon that nobody cannot serve, and return the beginnings of all faults."""
    closed, missing = roots(asked.folder, "closed"), f"{asked.folder}/missing"
    program = f"{closed}/program"
    shutil.copy("/bin/true", program)
    os.chmod(program, 0o700)
    asked.configure(
        daemon={"user": "nobody"},
        listen=[
            {"address": f"unix:{closed}/a.sock"},
            {"address": f"unix:{missing}/b.sock"},
            {"address": "192.0.2.99", "port": 0},
        ],
        log={"file": f"{closed}/tetrad.log"},
        commands={"prog": {"run": [program]}},
    )
    access = f"permission denied; user nobody needs write access to directory {closed}"
    return [
        "192.0.2.99:0: cannot assign requested address",
        f"unix:{closed}/a.sock: {access}",
        f"unix:{missing}/b.sock: no such file or directory; create the directory {missing}",
        f"log.file: {closed}/tetrad.log: {access}",
        f"{program} is not executable; run chmod +x {program} (as user nobody)",
    ]


def test_all_faults_of_the_daemons_user_are_found_in_one_run(asked: Daemon) -> None:
    """By check, with exit status 78, and by the start, which leaves nothing behind."""
    expected = set_up_faults(asked)
    found = faults(asked)
    assert len(found) == len(expected)
    assert all(text in one for text, one in zip(expected, found, strict=True)), found
    before = files_below(asked.folder)
    ran = asked.tetrad("start")
    assert (ran.status, ran.out, ran.err) == (4, "", f"tetrad: {'; '.join(found)}\n")
    assert files_below(asked.folder) == before


def test_a_restart_finds_them_before_the_stop(asked: Daemon) -> None:
    """Root has served with a log of its own; then it adds `daemon.user`."""
    asked.start()
    expected = set_up_faults(asked)
    ran = asked.tetrad("restart")
    assert (ran.status, ran.out) == (4, "")
    assert ran.err.startswith(NOT_STOPPED)
    assert all(text in ran.err for text in expected), ran.err
    del asked.settings["commands"]
    asked.configure(listen=[{"port": 0}], log={"file": "tetrad.log"})
    (fault,) = faults(asked)
    assert fault == (
        f"log.file: {asked.log_file}: permission denied;"
        f" user nobody needs write access to {asked.log_file}"
    )
    assert asked.tetrad("restart").err == f"{NOT_STOPPED}{fault}\n"
    assert ANSWER.fullmatch(asked.connect().ask())
    os.chown(asked.log_file, pwd.getpwnam("nobody").pw_uid, -1)
    ran = asked.tetrad("restart")
    assert (ran.status, ran.err) == (0, "")
    asked.adopt(ran.out)


def test_python_that_the_user_cannot_execute_is_found(asked: Daemon) -> None:
    """As in a virtual environment in /root: by check and before a stop."""
    asked.start()
    asked.configure(daemon={"user": "nobody"})
    folder = roots(asked.folder, "root")
    python = os.path.join(folder, "python")
    os.symlink(os.path.realpath(sys.executable), python)
    os.chmod(folder, 0o700)
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    os.chown(asked.log_file, pwd.getpwnam("nobody").pw_uid, -1)
    for command, status in {"check": 78, "restart": 4}.items():
        ran = run([python, "-m", "tetrad", command, "-c", asked.file], asked.environment | path)
        assert (ran.status, ran.out) == (status, "")
        assert f"user nobody cannot read {python}, which the daemon needs: install" in ran.err
    assert ANSWER.fullmatch(asked.connect().ask())


def test_what_only_root_can_read_prevents_a_reload(asked: Daemon) -> None:
    """The start reads it as root, and warns; check refuses it, with the purpose."""
    asked.configure(daemon={"user": "nobody"})
    os.chmod(asked.file, 0o600)
    text = f"{asked.file}: permission denied; user nobody needs read access"
    text += ", for a reload and an upgrade"
    assert faults(asked) == [text]
    ran = asked.tetrad("start")
    assert (ran.status, ran.err) == (0, f"tetrad: warning: {text}\n")
    asked.adopt(ran.out)
    assert asked.tetrad("reload").status == 78
    ran = asked.tetrad("restart")
    assert (ran.status, ran.err) == (0, f"tetrad: warning: {text}\n")
    asked.adopt(ran.out)


# check --user


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"log": {"file": "/etc/x.log"}}, "log.file: /etc/x.log: permission denied; user nobody"),
        ({"daemon": {"pidfile": "/run/x.pid"}}, "user nobody needs write access to directory /run"),
        ({"daemon": {"control": "/run/x"}}, "user nobody needs write access to directory /run"),
        ({"daemon": {"working_directory": "/root"}}, "user nobody needs access to directory /root"),
        ({"listen": [{"address": "unix:/etc/x"}]}, "user nobody needs write access to directory"),
        ({"daemon": {"user": "daemon"}}, "daemon.user needs root; under systemd set User="),
    ],
)
def test_another_user_is_checked(asked: Daemon, settings: dict[str, Any], text: str) -> None:
    """With the same texts as that user's own check; root's own check finds nothing."""
    if stat.S_IMODE(os.stat("/root").st_mode) & 0o005:
        pytest.skip("every user can enter /root here")
    asked.configure(**settings)
    if "user" not in settings.get("daemon", {}):
        assert asked.tetrad("check").status == 0
    (fault,) = faults(asked, "--user", "nobody")
    assert text in fault
    own = run(
        [*BECOME_NOBODY, sys.executable, "-m", "tetrad", "check", "-c", asked.file],
        asked.environment,
        cwd="/",
    )
    assert own.err == f"tetrad: {fault}\n"


def test_a_key_of_another_user_is_refused(asked: Daemon, pki: Any) -> None:  # noqa: ANN401
    """With the location of the value."""
    certificate, key = (f"{asked.folder}/{name}" for name in ("server.pem", "server.key"))
    for source, target in zip(pki.server, (certificate, key), strict=True):
        pathlib.Path(target).write_bytes(pathlib.Path(source).read_bytes())
    os.chmod(key, 0o600)
    asked.configure(listen=[{"port": 0, "tls": {"certificate": certificate, "key": key}}])
    assert asked.tetrad("check").status == 0
    (fault,) = faults(asked, "--user", "nobody")
    assert fault.startswith(f"{asked.file}:")
    assert fault.endswith(f"listen[0].tls.key: {key}: permission denied (as user nobody)")
    os.chown(key, pwd.getpwnam("nobody").pw_uid, -1)
    assert asked.tetrad("check", "--user", "nobody").status == 0


def test_the_default_paths_of_another_user_are_checked(asked: Daemon) -> None:
    """The folders in that user's home; here it has none, and may not make it."""
    home = pwd.getpwnam("nobody").pw_dir
    if os.path.exists(home):
        pytest.skip("the user nobody has a home here")
    pathlib.Path(asked.file).write_text("listen: [{port: 0}]\n", "ascii")
    found = faults(asked, "--user", "nobody")
    assert len(found) == 2
    assert all("user nobody needs write access to directory /" in one for one in found)
    assert all(one.startswith(home) for one in found)


def test_who_may_check_as_whom(asked: Daemon) -> None:
    """Everybody as oneself, root as anybody who exists."""
    command = [*BECOME_NOBODY, sys.executable, "-m", "tetrad", "check", "-c", asked.file, "--user"]

    def as_nobody(name: str) -> Ran:
        return run([*command, name], environment(asked.folder), cwd="/")

    assert as_nobody("nobody").status == 0
    refused = as_nobody("daemon")
    assert (refused.status, refused.err) == (
        4,
        "tetrad: --user: only root can check as another user\n",
    )
    ran = asked.tetrad("check", "--user", "no-such-user")
    assert ran.status == 2
    assert "this machine has no user 'no-such-user'" in ran.err


def test_the_daemons_user_is_checked_as_after_a_start_by_root(asked: Daemon) -> None:
    """A port below 1024 is opened before the change of user."""
    asked.configure(daemon={"user": "nobody"}, listen=[{"address": "127.0.0.1", "port": 81}])
    assert asked.tetrad("check", "--user", "nobody").status == 0
    asked.configure(daemon={"user": None})
    (fault,) = faults(asked, "--user", "nobody")
    assert "127.0.0.1:81: permission denied; ports below 1024 need root" in fault


# daemon.user without root


def test_daemon_user_may_be_who_starts(asked: Daemon) -> None:
    """Whatever its group is; another user is refused by check and before a stop."""
    folder = roots(asked.folder, "games")
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    other_group = [*BECOME_NOBODY[:2], "--regid=games", "--clear-groups"]

    def tetrad(command: str) -> Ran:
        base = [*other_group, sys.executable, "-m", "tetrad", command, "-c", asked.file]
        return run(base, asked.environment, cwd="/")

    asked.configure(daemon={"user": "nobody"})
    assert tetrad("check").status == 0
    started = tetrad("start")
    assert (started.status, started.err) == (0, "")
    asked.adopt(started.out)
    asked.configure(daemon={"user": "daemon"})
    text = "daemon.user needs root; under systemd set User= in the unit instead\n"
    assert (tetrad("check").status, tetrad("check").err) == (78, f"tetrad: {text}")
    assert tetrad("restart").err == NOT_STOPPED + text
    asked.configure(daemon={"user": "nobody"})
    assert ANSWER.fullmatch(asked.connect().ask())


def test_a_start_of_an_ordinary_user_reports_all_faults(asked: Daemon) -> None:
    """Also those that come after a change of user, which that user cannot make."""
    missing = os.path.join(asked.folder, "missing")
    asked.configure(daemon={"user": "daemon"}, listen=[{"address": f"unix:{missing}/a.sock"}])
    ran = asked.tetrad("start", user="nobody", group="nogroup", extra_groups=[])
    assert ran.status == 4
    assert "daemon.user needs root; " in ran.err
    assert f"create the directory {missing}" in ran.err


# Reload


def test_a_refused_reload_creates_nothing(asked: Daemon) -> None:
    """Neither the new log nor a Unix socket; a fault that is not in the file is exit status 1."""
    asked.start()
    before = files_below(asked.folder)
    new = {"log": {"file": "new.log"}, "listen": [{"port": 0}, {"address": "unix:new.sock"}]}
    asked.configure(**new, daemon={"umask": "077"})
    assert asked.tetrad("reload").status == 78
    asked.configure(daemon={"umask": "027"}, log={"file": "missing/new.log"})
    ran = asked.tetrad("reload")
    assert ran.status == 1
    assert "not reloaded; log.file: " in ran.err
    assert files_below(asked.folder) == before
    asked.configure(**new)
    assert asked.tetrad("reload").status == 0
    asked.log_file = f"{asked.folder}/new.log"
    asked.wait_for("server.reloaded")
