"""Programs and processes as /proc shows them, and how to wait for conditions."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TIMEOUT_SECONDS = 30.0
"""How long a test waits for anything that must happen, on a very busy machine."""

POLL_SECONDS = 0.01
"""The interval between two checks of a condition."""

_COVERAGE = {"COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"}
UNDER_COVERAGE = bool(_COVERAGE & os.environ.keys())
"""Whether coverage is measured, which adds modules and descriptors."""

_T = TypeVar("_T")


def until(look: Callable[[], _T], what: str) -> _T:
    """Call `look` until its result is true, and return that; fail after TIMEOUT_SECONDS."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (answer := look()):
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(POLL_SECONDS)
    return answer


class Ran(NamedTuple):
    """The result of a command that has ended."""

    status: int
    out: str
    err: str


def run(arguments: Sequence[str], environment: dict[str, str], **options: Any) -> Ran:  # noqa: ANN401
    """Run a program to its end.

    Its output goes into files: a pipe could be held open by a process that outlives it.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options}
        with subprocess.Popen(arguments, env=environment, **streams) as process:
            try:
                status = process.wait(TIMEOUT_SECONDS)
            finally:
                process.kill()
        ran = Ran(status, _read(out), _read(err))
    assert_no_traceback(ran.err)
    return ran


def assert_no_traceback(text: str) -> None:
    """Fail if an operator's output shows a traceback or a defect."""
    assert "Traceback" not in text, text
    assert "a defect in" not in text, text
    assert "internal error" not in text, text


def first_unprivileged_port() -> int:
    """Return the first port that does not need root."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        return int(file.read())


def environment(home: str) -> dict[str, str]:
    """Return an environment with its own HOME and without tetrad's variables."""
    os.makedirs(home, exist_ok=True)
    others = {"TETRAD_CONFIG", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"}
    coverage = {"TETRAD_PASS_ENVIRONMENT": " ".join(_COVERAGE)} if UNDER_COVERAGE else {}
    return {**{k: v for k, v in os.environ.items() if k not in others}, **coverage, "HOME": home}


def files_below(folder: str) -> set[str]:
    """Return all paths below a folder."""
    return {
        os.path.join(top, name) for top, dirs, files in os.walk(folder) for name in dirs + files
    }


class Process:
    """A process held by a pidfd, so that a reused pid is never mistaken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def has_ended(self, seconds: float = TIMEOUT_SECONDS) -> bool:
        """Wait for its end, and return whether it has ended."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended."""
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self._fd)


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies included."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def status_of(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def state_of(pid: int) -> str:
    """Return the state letter of a process, as `ps` shows it."""
    return status_of(pid)["State"][0]


def memory_of(pid: int) -> dict[str, int]:
    """Return a process's memory in KiB, by the names of /proc/PID/smaps_rollup."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row[-1] == "kB"}


def stat_of(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name; the first is the state."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(") ")[2].split()


def title_of(pid: int) -> str:
    """Return the process title that `ps` shows; empty for a process that has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descriptors_of(pid: int) -> dict[int, str]:
    """Return a process's open descriptors and their targets."""
    folder = f"/proc/{pid}/fd"
    found = {}
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            found[int(fd)] = os.readlink(os.path.join(folder, fd))
    return found


def kinds_of(descriptors: dict[int, str]) -> dict[int, str]:
    """Return descriptors with the kind of their target, without inode numbers."""
    return {fd: re.sub(r":?\[.*", "", name) for fd, name in descriptors.items()}


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Suspend a process with SIGSTOP during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: state_of(pid) == "T", "the process to stop")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def in_background(work: Callable[[], object]) -> threading.Thread:
    """Run a function in a thread, which the caller joins."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
