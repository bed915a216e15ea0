"""Commands without a configuration file, as root and as an ordinary user."""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from tests.support.processes import assert_no_traceback, environment, run
from tests.support.system_programs import require

if TYPE_CHECKING:
    import pathlib

ALL_COMMANDS = """
for command in check status stop reload start start status reload restart stop status
do "$0" -m tetrad "$command" 2>&1; echo "$? $command"; done
"""

STATUSES = [
    "0 check",
    "3 status",
    "0 stop",
    "7 reload",
    "0 start",
    "0 start",
    "0 status",
    "0 reload",
    "0 restart",
    "0 stop",
    "3 status",
]

APART = "ip link set lo up && mount -t tmpfs no /run && mount -t tmpfs no /var/log && exec"

BECOME_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def run_apart(home: str, become: list[str]) -> list[str]:
    """Run all commands without a configuration, in a network and folders of their own."""
    if os.path.exists("/etc/tetrad/tetrad.yaml"):
        pytest.skip("this machine has a configuration: move /etc/tetrad/tetrad.yaml away")
    apart = ["unshare", "--net", "--mount", "/bin/sh", "-c", f'{APART} "$@"', "sh"]
    require("unshare", "ip", "setpriv")
    ran = run([*apart, "true"], environment(home))
    if ran.status:
        pytest.skip(f"run the tests as root that may make networks: {ran.err.strip()}")
    return run_all([*apart, *become], home)


def run_all(prefix: list[str], home: str) -> list[str]:
    """Run all commands, and return their statuses."""
    command = [*prefix, "/bin/sh", "-c", ALL_COMMANDS, sys.executable]
    ran = run(command, environment(home), cwd="/")
    assert_no_traceback(ran.out)
    assert ran.err == ""
    return re.findall(r"^\d+ \w+$", ran.out, re.MULTILINE)


def test_root_needs_no_configuration(tmp_path: pathlib.Path) -> None:
    """With the built-in defaults root can start a daemon, in the system's folders."""
    assert run_apart(str(tmp_path), []) == STATUSES


class Ordinary(NamedTuple):
    """A user other than root: the home, and the command by which root becomes that user."""

    home: str
    become: list[str]


@pytest.fixture
def ordinary(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Ordinary:
    """Return the user that runs the tests, or nobody if that is root."""
    if os.geteuid():
        return Ordinary(str(tmp_path), [])
    return Ordinary(request.getfixturevalue("nobodys_folder"), BECOME_NOBODY)


@pytest.mark.quick
def test_an_ordinary_user_needs_no_configuration(ordinary: Ordinary) -> None:
    """With the built-in defaults every user can start a daemon, in the user's own folders."""
    if ordinary.become:
        statuses = run_apart(*ordinary)
    else:
        with socket.socket() as peer:
            if peer.connect_ex(("127.0.0.1", 65000)) == 0:
                pytest.skip("port 65000 is taken: end the program that listens there")
        statuses = run_all([], ordinary.home)
    assert statuses == STATUSES
    assert os.listdir(ordinary.home) == [".local"]
    state = os.path.join(ordinary.home, ".local", "state", "tetrad")
    assert set(os.listdir(state)) == {"run", "tetrad.log"}


def test_the_xdg_folders_are_used(ordinary: Ordinary) -> None:
    """The XDG variables set the folders of an ordinary user's files."""
    variables = environment(ordinary.home) | {
        "XDG_RUNTIME_DIR": f"{ordinary.home}/runtime",
        "XDG_STATE_HOME": f"{ordinary.home}/state",
    }
    command = [*ordinary.become, sys.executable, "-m", "tetrad", "check", "--dump"]
    dumped = yaml.safe_load(run(command, variables, cwd="/").out)
    assert dumped["daemon"]["pidfile"] == f"{ordinary.home}/runtime/tetrad/tetrad.pid"
    assert dumped["log"]["file"] == f"{ordinary.home}/state/tetrad/tetrad.log"
