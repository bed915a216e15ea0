"""The pidfile, whatever stands there: nobody's file is touched, and nobody is signalled."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from processes import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import MakeDaemon
    from daemons import Daemon
    from processes import Ran

COMMANDS = ("status", "stop", "reload")

NOTES = b"Ask the landlord about the roof.\nTell nobody.\n"
"""What is somebody else's."""

HOLD = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
lock = struct.pack("@hhqqi4x", int(sys.argv[3]), os.SEEK_SET, 0, 0, 0)
fcntl.fcntl(fd, int(sys.argv[2]), lock)
print("held", flush=True)
sys.stdin.read()
"""
"""A program that locks a file, as other daemons lock their pidfiles."""

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="install strace")


def asked_silently(daemon: Daemon, *arguments: str) -> Ran:
    """Run a command under a guard that sees whether it signals anybody at all; it must not."""
    seen = os.path.join(daemon.folder, "signals")
    guard = ["strace", "-f", "-qq", "-e", "signal=none", "-o", seen]
    guard += ["-e", "trace=kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo"]
    command = [sys.executable, "-m", "tetrad", *arguments, "-c", daemon.file]
    ran = run([*guard, *command], daemon.environment)
    with open(seen, encoding="utf-8") as file:
        assert file.read() == ""
    os.unlink(seen)
    return ran


@needs_strace
@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 3), (b"1\n", 1), (b"-1\n", 1), (b"x\n", 1)],
)
def test_what_an_old_pidfile_says_is_nothing_to_anybody(
    prepared: MakeDaemon, content: bytes, status: int
) -> None:
    """No lock, no daemon: no process of that number is signalled, and a start just works."""
    asked = prepared()
    with open(asked.pidfile, "wb") as file:
        file.write(content)
    ran = {name: asked_silently(asked, name) for name in COMMANDS}
    assert [ran[name].status for name in COMMANDS] == [status, 0, 7]
    assert ran["stop"].out == "tetrad: not running\n"
    asked.start()
    assert asked.status()["pid"] == asked.pid


@needs_strace
@pytest.mark.parametrize(("name", "status"), [("status", 1), ("stop", 0), ("reload", 7)])
def test_a_pidfile_with_the_askers_own_pid_is_no_daemon(
    prepared: MakeDaemon, name: str, status: int
) -> None:
    """A command whose very number stands there does not take itself for the daemon."""
    asked = prepared()
    script = 'echo $$ >"$1"; shift; exec "$@"'
    command = [sys.executable, "-m", "tetrad", name, "-c", asked.file]
    ran = run(["/bin/sh", "-c", script, "sh", asked.pidfile, *command], asked.environment)
    assert ran.status == status


def a_text(path: str) -> None:
    """Have a text there."""
    with open(path, "wb") as file:
        file.write(NOTES)


def some_bytes(path: str) -> None:
    """Have something there that is no text."""
    with open(path, "wb") as file:
        file.write(bytes(range(256)))


def a_link_to_a_text(path: str) -> None:
    """Have a link to somebody's text there."""
    a_text(f"{path}.notes")
    os.symlink(f"{path}.notes", path)


def a_link_to_a_number(path: str) -> None:
    """Have a link there to what looks like a pidfile, and is another daemon's."""
    with open(f"{path}.other", "wb") as file:
        file.write(b"1\n")
    os.symlink(f"{path}.other", path)


def a_link_to_nothing(path: str) -> None:
    """Have a link to what does not exist there."""
    os.symlink(f"{path}.nothing", path)


def a_folder(path: str) -> None:
    """Have a folder there."""
    os.mkdir(path)
    a_text(os.path.join(path, "notes"))


def a_socket(path: str) -> None:
    """Have a socket there."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)


def everything_below(folder: str) -> dict[str, tuple[int, bytes]]:
    """Return what there is, by name: its kind and permissions, and its content."""
    found: dict[str, tuple[int, bytes]] = {}
    for entry in os.scandir(folder):
        content = b""
        if entry.is_symlink():
            content = os.readlink(entry).encode()
        elif entry.is_file():
            with open(entry, "rb") as file:
                content = file.read()
        elif entry.is_dir():
            found |= everything_below(entry.path)
        found[entry.path] = (os.lstat(entry).st_mode, content)
    return found


@needs_strace
@pytest.mark.parametrize(
    "make",
    [
        *(a_text, some_bytes, a_link_to_a_text, a_link_to_a_number, a_link_to_nothing),
        *(a_folder, os.mkfifo, a_socket),
    ],
)
def test_what_is_no_pidfile_is_not_touched(
    prepared: MakeDaemon, make: Callable[[str], None]
) -> None:
    """Each command says what is wrong there; all is as before, and nobody was signalled."""
    asked = prepared()
    make(asked.pidfile)
    before = everything_below(asked.folder)
    ran = {name: asked_silently(asked, name) for name in COMMANDS}
    ran["start"] = asked.tetrad("start")
    assert {name: one.status for name, one in ran.items()} == {
        "status": 4,
        "stop": 1,
        "reload": 1,
        "start": 1,
    }
    assert all(one.err.startswith(f"tetrad: {asked.pidfile}: ") for one in ran.values())
    assert all(one.err.count("\n") == 1 for one in ran.values())
    assert everything_below(asked.folder) == before


@pytest.fixture
def held(
    prepared: MakeDaemon, request: pytest.FixtureRequest
) -> Iterator[tuple[Daemon, subprocess.Popen[str]]]:
    """Return a daemon whose pidfile another program has locked, and that program."""
    asked = prepared()
    with open(asked.pidfile, "w", encoding="ascii") as file:
        file.write("1\n")
    command, kind = request.param
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, asked.pidfile, str(command), str(kind)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield asked, other
        other.kill()


@needs_strace
@pytest.mark.parametrize(
    "held",
    [(6, 1), (6, 0), (37, 1)],
    ids=["a record lock", "a record lock to read", "a lock of the open file"],
    indirect=True,
)
def test_another_programs_lock_is_no_daemon_of_ours(
    held: tuple[Daemon, subprocess.Popen[str]],
) -> None:
    """Who holds the file in another way than tetrad does is named, and not stopped."""
    asked, other = held
    ran = [asked_silently(asked, name) for name in COMMANDS] + [asked.tetrad("start")]
    assert [one.status for one in ran] == [4, 1, 1, 1]
    assert all(one.err.startswith(f"tetrad: {asked.pidfile}: ") for one in ran)
    assert all("another program" in one.err for one in ran)
    assert other.poll() is None
    with open(asked.pidfile, "rb") as file:
        assert file.read() == b"1\n"
