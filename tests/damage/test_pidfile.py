"""Whatever is at the pidfile's path, other files do not change and no process is signalled."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import run
from tests.support.strace import needs_strace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Ran

COMMANDS = ("status", "stop", "reload")

NOTES = b"These are notes.\nThey are not a pidfile.\n"
"""Another user's text."""

HOLD = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
lock = struct.pack("@hhqqi4x", int(sys.argv[3]), os.SEEK_SET, 0, 0, 0)
fcntl.fcntl(fd, int(sys.argv[2]), lock)
print("held", flush=True)
sys.stdin.read()
"""
"""A program that locks a file, as other daemons lock their pidfiles."""


def run_without_signals(daemon: Daemon, *arguments: str) -> Ran:
    """Run a command under strace, and fail if it signals any process."""
    seen = os.path.join(daemon.folder, "signals")
    guard = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o", seen]
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
def test_a_stale_pidfile_is_ignored(prepared: MakeDaemon, content: bytes, status: int) -> None:
    """Without a lock no process of that pid is signalled, and a start works."""
    asked = prepared()
    with open(asked.pidfile, "wb") as file:
        file.write(content)
    ran = {name: run_without_signals(asked, name) for name in COMMANDS}
    assert [ran[name].status for name in COMMANDS] == [status, 0, 7]
    assert ran["stop"].out == asked.not_running
    asked.start()
    assert asked.status()["pid"] == asked.pid


@needs_strace
@pytest.mark.parametrize(("name", "status"), [("status", 1), ("stop", 0), ("reload", 7)])
def test_a_pidfile_with_the_commands_own_pid_is_stale(
    prepared: MakeDaemon, name: str, status: int
) -> None:
    """A command does not mistake itself for the daemon."""
    asked = prepared()
    script = 'echo $$ >"$1"; shift; exec "$@"'
    command = [sys.executable, "-m", "tetrad", name, "-c", asked.file]
    ran = run(["/bin/sh", "-c", script, "sh", asked.pidfile, *command], asked.environment)
    assert ran.status == status


def a_text(path: str) -> None:
    """Create a text file."""
    with open(path, "wb") as file:
        file.write(NOTES)


def some_bytes(path: str) -> None:
    """Create a binary file."""
    with open(path, "wb") as file:
        file.write(bytes(range(256)))


def a_link_to_a_text(path: str) -> None:
    """Create a link to a text file."""
    a_text(f"{path}.notes")
    os.symlink(f"{path}.notes", path)


def a_link_to_a_number(path: str) -> None:
    """Create a link to another daemon's pidfile."""
    with open(f"{path}.other", "wb") as file:
        file.write(b"1\n")
    os.symlink(f"{path}.other", path)


def a_link_to_nothing(path: str) -> None:
    """Create a dangling link."""
    os.symlink(f"{path}.nothing", path)


def a_folder(path: str) -> None:
    """Create a folder."""
    os.mkdir(path)
    a_text(os.path.join(path, "notes"))


def a_socket(path: str) -> None:
    """Create a socket."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)


def everything_below(folder: str) -> dict[str, tuple[int, bytes]]:
    """Return all paths with their mode and content."""
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
def test_a_file_that_is_not_a_pidfile_is_not_touched(
    prepared: MakeDaemon, make: Callable[[str], None]
) -> None:
    """Each command reports it; nothing changes, and no process is signalled."""
    asked = prepared()
    make(asked.pidfile)
    before = everything_below(asked.folder)
    ran = {name: run_without_signals(asked, name) for name in COMMANDS}
    ran["start"] = asked.tetrad("start")
    assert {name: one.status for name, one in ran.items()} == {
        "status": 4,
        "stop": 1,
        "reload": 1,
        "start": 1,
    }
    assert all(
        one.err.startswith(f"tetrad: daemon.pidfile: {asked.pidfile}: ") for one in ran.values()
    )
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
def test_a_lock_of_another_program_is_reported(
    held: tuple[Daemon, subprocess.Popen[str]],
) -> None:
    """A program that locks the file differently from tetrad is named, and not stopped."""
    asked, other = held
    ran = [run_without_signals(asked, name) for name in COMMANDS] + [asked.tetrad("start")]
    assert [one.status for one in ran] == [4, 1, 1, 1]
    assert all(one.err.startswith(f"tetrad: daemon.pidfile: {asked.pidfile}: ") for one in ran)
    assert all("another program" in one.err for one in ran)
    assert other.poll() is None
    with open(asked.pidfile, "rb") as file:
        assert file.read() == b"1\n"
