"""Reload and upgrade of a daemon of root with `daemon.user` and default places.

The file is then read by a user whose own default places would be others. The system's folders are
those of a mount namespace: nothing of this machine changes.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import environment, run
from tetrad import __version__

if TYPE_CHECKING:
    from tests.support.processes import Ran

needs_namespaces = pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare(1)")

SETUP = """
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
python=$1 file=$2; shift 2
tetrad() { "$python" -m tetrad "$@" 2>&1 | sed 's/ (pid .*//; s/, listening on .*//'; }
logged() { grep -c "\\"server.$1\\"" /var/log/tetrad/tetrad.log || true; }
signal() {
    before=$(logged "$2")
    kill "-$1" "$(cat /run/tetrad/tetrad.pid)"
    until test "$(logged "$2")" -gt "$before" || test "$(logged "${3}_failed")" -gt 0
    do sleep 0.02; done
}
cd /
"""


def in_namespace(file: str, script: str, **variables: str) -> Ran:
    """Run a script as root, with empty system folders of its own."""
    variables = environment(os.path.join(os.path.dirname(file), "home")) | variables
    return run(["unshare", "-m", "sh", "-c", SETUP + script, "sh", sys.executable, file], variables)


@pytest.fixture
def file(nobodys_folder: str) -> str:
    """Return a configuration file that sets no path."""
    path = os.path.join(nobodys_folder, "own.yaml")
    with open(path, "w", encoding="ascii") as stream:
        stream.write("listen: [{port: 0}]\ndaemon: {user: nobody}\n")
    os.chmod(path, 0o644)
    return path


AGAIN_AND_AGAIN = """
signal HUP reloaded reload; tetrad $with reload
signal HUP reloaded reload; tetrad $with reload
signal USR2 upgraded upgrade; tetrad $with upgrade; tetrad $with upgrade
signal HUP reloaded reload; tetrad $with reload
"""


@needs_namespaces
@pytest.mark.parametrize("is_named_by_option", [True, False])
def test_the_places_of_the_start_stay(file: str, *, is_named_by_option: bool) -> None:
    """By command and by signal, repeatedly, and after upgrades; -c or $TETRAD_CONFIG."""
    with_file = f"with='{'-c ' + file if is_named_by_option else ''}'\n"
    variables = {} if is_named_by_option else {"TETRAD_CONFIG": file}
    script = f"tetrad $with start\n{AGAIN_AND_AGAIN}tetrad $with stop; logged reloaded\n"
    ran = in_namespace(file, with_file + script, **variables)
    assert ran.out.splitlines() == [
        "tetrad: started",
        *["tetrad: reloaded; nothing changed"] * 2,
        *[f"tetrad: upgraded {__version__} -> {__version__}"] * 2,
        "tetrad: reloaded; nothing changed",
        "tetrad: stopped",
        "6",
    ], ran


@needs_namespaces
def test_another_path_is_still_refused(file: str) -> None:
    """The default places are those of the start; a file that names others needs a restart."""
    script = """
    tetrad -c "$file" start
    printf 'listen: [{port: 0}]\\ndaemon: {user: nobody, pidfile: /run/p}\\n' >"$file"
    tetrad -c "$file" reload
    tetrad -c "$file" stop
    """
    ran = in_namespace(file, script)
    assert "daemon.pidfile cannot change" in ran.out
    assert "/run/tetrad/tetrad.pid -> /run/p" in ran.out


@needs_namespaces
def test_without_a_file(file: str) -> None:
    """Root needs none, and then has no user to change to."""
    os.unlink(file)
    if os.path.exists("/etc/tetrad/tetrad.yaml"):
        pytest.skip("this machine has a configuration: move /etc/tetrad/tetrad.yaml away")
    script = f"""
    ip link set lo up
    with=''
    tetrad start
    {AGAIN_AND_AGAIN}
    tetrad stop
    """
    ran = run(
        ["unshare", "-nm", "sh", "-c", SETUP + script, "sh", sys.executable, file],
        environment(os.path.join(os.path.dirname(file), "home")),
    )
    assert ran.out.count("tetrad: reloaded; nothing changed") == 3, ran
    assert ran.out.count("tetrad: upgraded") == 2, ran
