"""Paths that cannot be those of sockets and pidfiles: `tetrad check` finds them."""

from __future__ import annotations

import os
import pwd
import sys

import pytest

from tests.support.processes import environment, run

NOBODY = pwd.getpwnam("nobody")

BECOME = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_long_default_socket_path_is_found(nobodys_folder: str) -> None:
    """The message has the limit; a configured path is checked by its key."""
    variables = environment(os.path.join(nobodys_folder, "home"))
    variables["XDG_RUNTIME_DIR"] = f"{nobodys_folder}/{'x' * 80}"
    os.mkdir(variables["XDG_RUNTIME_DIR"])
    for folder in (variables["HOME"], variables["XDG_RUNTIME_DIR"]):
        os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    path = f"{variables['XDG_RUNTIME_DIR']}/tetrad/control.sock"
    limit = f"has {len(path)} bytes; the path of a Unix socket has at most 107; name a shorter path"
    for command in ("check", "start"):
        ran = run([*BECOME, sys.executable, "-m", "tetrad", command], variables, cwd="/")
        assert ran.status
        assert f"tetrad: daemon.control: {path}: {limit}\n" in ran.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_runtime_folder_of_another_user_is_named(nobodys_folder: str) -> None:
    """As after su(1) without `-`."""
    theirs = os.path.join(nobodys_folder, "theirs")
    os.mkdir(theirs, 0o700)
    variables = environment(os.path.join(nobodys_folder, "home"))
    os.chown(variables["HOME"], NOBODY.pw_uid, NOBODY.pw_gid)
    variables["XDG_RUNTIME_DIR"] = theirs
    reason = "XDG_RUNTIME_DIR is a folder of user root: unset it, or change the user with su -"
    for command in ("check", "start"):
        ran = run([*BECOME, sys.executable, "-m", "tetrad", command], variables, cwd="/")
        assert ran.status
        assert reason in ran.err
