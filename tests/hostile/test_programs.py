"""A program or function that was taken over attacks the daemon's processes, which have its user."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.jobs import ask
from tests.support.processes import run
from tests.support.refused_calls import needs_seccomp, refusing
from tetrad.system import landlock

if TYPE_CHECKING:
    import pathlib

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

needs_landlock = pytest.mark.skipif(
    bool(landlock.unavailable()), reason="this kernel has no Landlock of use"
)

MODULE = r"""
import errno, json, os, signal, socket

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def read(path):
    with open(path, "rb", buffering=0) as file:
        file.read(1)

def attacks(context):
    ours = [os.getppid()]  # the supervisor, the handler, the master and the logger
    while not title(ours[-1]).startswith("tetrad: master"):
        ours.append(parent_of(ours[-1]))
    with open(f"/proc/{ours[-1]}/task/{ours[-1]}/children") as children:
        ours += [int(pid) for pid in children.read().split() if int(pid) not in ours]
    return json.dumps({
        title(pid): [
            attempt(lambda: read(f"/proc/{pid}/environ")),
            attempt(lambda: open(f"/proc/{pid}/mem", "r+b", buffering=0)),
            attempt(lambda: os.readlink(f"/proc/{pid}/fd/3")),
            attempt(lambda: os.open(f"/proc/{pid}/fd/3", os.O_WRONLY)),
            attempt(lambda: read(f"/proc/{pid}/maps")),
            attempt(lambda: os.kill(pid, 0)),
        ]
        for pid in ours
    })

def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(") ")[2].split()[1])

def title(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return " ".join(file.read().partition("\0")[0].split()[:2])

def requests(context):
    words = [b"upgrade-to /bin/sh\0-c\0id", b"status", b"reload"]
    return json.dumps([ask(word, orphan) for word in words for orphan in (False, True)])

def ask(word, orphan):
    # An orphan's own parent exits; it becomes a child of the supervisor.
    with socket.socket(socket.AF_UNIX) as control:
        read, write = os.pipe()
        if os.fork() == 0:
            if not orphan or os.fork() == 0:
                control.connect(FOLDER + "/control.sock")
                control.sendall(word + b"\n")
                os.write(write, b"".join(iter(lambda: control.recv(4096), b"")))
            os._exit(0)
        os.wait()
        os.close(write)
        answer = json.loads(os.read(read, 65536))
        os.close(read)
        return answer.get("error", "done")

def moves(context):
    os.makedirs(FOLDER + "/a/b", exist_ok=True)
    open(FOLDER + "/a/file", "w").close()
    os.rename(FOLDER + "/a/file", FOLDER + "/a/b/file")
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    return str(os.waitpid(child, 0)[1])
"""

TITLES = ["tetrad: master", "tetrad: logger", "tetrad: handler", "tetrad: job"]

REFUSED = ["EACCES"] * 5 + ["EPERM"]


def write_module(folder: str, data: str) -> None:
    """Write the module to a folder; its functions use the folder `data`."""
    with open(os.path.join(folder, "intruder.py"), "w", encoding="utf-8") as file:
        file.write(f"FOLDER = {data!r}\n{MODULE}")


@pytest.fixture
def intruded(
    prepared: MakeDaemon, request: pytest.FixtureRequest, tmp_path: pathlib.Path, public_folder: str
) -> Daemon:
    """Return a daemon of an ordinary user whose functions are an attacker's; not started."""
    folder, user = str(tmp_path), None
    if os.geteuid() == 0:
        folder, user = request.getfixturevalue("nobodys_folder"), "nobody"
    names = {"atta": "attacks", "move": "moves", "requ": "requests"}
    commands = {word: {"call": f"intruder:{name}"} for word, name in names.items()}
    settings = {"daemon": {"user": user}, "log": {"level": "debug"}, "commands": commands}
    asked = prepared(folder=folder, **settings)
    modules = tempfile.mkdtemp(dir=public_folder)  # root uses no module in a folder of another user
    os.chmod(modules, 0o755)  # noqa: S103 - all users may read it
    write_module(modules, folder)
    path = [modules, asked.environment.get("PYTHONPATH", "")]
    asked.environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    return asked


def attack(served: Daemon) -> Any:  # noqa: ANN401 - any JSON
    """Return the outcomes of the attacks by the title of the process."""
    return json.loads(ask(served, b"attaquit").removesuffix(b"quit"))


@needs_landlock
def test_a_program_reaches_no_process_of_the_daemon(intruded: Daemon) -> None:
    """Neither environment, memory, descriptors and mappings, nor by a signal."""
    intruded.start()
    assert intruded.logger
    assert attack(intruded) == dict.fromkeys(TITLES, REFUSED)
    assert not intruded.events("server.unconfined", fence="programs")


def test_a_program_cannot_choose_what_the_master_executes(intruded: Daemon) -> None:
    """By the request for an upgrade that names the code; others of its user can."""
    intruded.start()
    errors = json.loads(ask(intruded, b"reququit").removesuffix(b"quit"))
    denied = "permission denied: not for a program that the daemon runs; otherwise use root"
    assert errors == [denied] * 2 + ["done"] * 4
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    for options in [user, {}] if os.geteuid() == 0 else [{}]:
        ran = intruded.tetrad("upgrade", **options)
        assert ran.status == 0, ran.err


@needs_landlock
def test_programs_do_what_they_could_do_before(intruded: Daemon) -> None:
    """Move files between folders, and signal their own children."""
    intruded.start()
    assert ask(intruded, b"movequit") == b"15quit"


@needs_seccomp
def test_a_kernel_without_landlock_is_no_error(intruded: Daemon) -> None:
    """The log tells at the level debug; programs run."""
    intruded.command = [*refusing("landlock_create_ruleset:ENOSYS"), *intruded.command]
    intruded.start()
    line = intruded.wait_for("server.unconfined", fence="programs")
    assert (line["level"], line["why"]) == ("debug", "Landlock: function not implemented")
    assert ask(intruded, b"movequit") == b"15quit"


OLD_KERNEL = """
import ctypes, os, sys
from tetrad.system import landlock
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
landlock._version = lambda: 2
landlock.confine()
sys.path.append(sys.argv[1])
import intruder
print(intruder.moves(None), intruder.attempt(lambda: open(f"/proc/{os.getppid()}/mem", "r+b")))
"""


@needs_landlock
def test_landlock_without_scopes(tmp_path: pathlib.Path) -> None:
    """Before Linux 6.12 the domain needs a rule about files; it protects all but from signals."""
    write_module(str(tmp_path), str(tmp_path))
    ran = run([sys.executable, "-c", OLD_KERNEL, str(tmp_path)], dict(os.environ))
    assert ran == (0, "15 EACCES\n", "")
