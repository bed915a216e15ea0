"""Programs and processes, as /proc and the kernel show them, and how to wait for things."""

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

PATIENCE_SECONDS = 30.0
"""How long anything that must happen may take, on a machine that is very busy."""

NAP_SECONDS = 0.01
"""How often something is looked at that cannot be waited for."""

MEASURED = bool({"COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"} & os.environ.keys())
"""Whether coverage is measured, which brings modules and descriptors along."""

_T = TypeVar("_T")


def until(look: Callable[[], _T], what: str) -> _T:
    """Return the first true answer of `look`; fail if none comes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := look()):
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(NAP_SECONDS)
    return answer


class Ran(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


def run(arguments: Sequence[str], environment: dict[str, str], **options: Any) -> Ran:  # noqa: ANN401
    """Run a program to its end; its output goes into files, which nobody can hold open."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options}
        with subprocess.Popen(arguments, env=environment, **streams) as process:
            try:
                status = process.wait(PATIENCE_SECONDS)
            finally:
                process.kill()
        ran = Ran(status, _read(out), _read(err))
    complain_of_defects(ran.err)
    return ran


def complain_of_defects(text: str) -> None:
    """Fail where a program has shown its inside to an operator."""
    assert "Traceback" not in text, text
    assert "a defect in" not in text, text


def first_port_for_everybody() -> int:
    """Return the first port that is not root's alone."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        return int(file.read())


def environment(home: str) -> dict[str, str]:
    """Return an environment with a home of its own, and with nothing about another tetrad.

    Output is buffered, as it is with operators.
    """
    os.makedirs(home, exist_ok=True)
    others = {"TETRAD_CONFIG", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "PYTHONUNBUFFERED"}
    return {**{k: v for k, v in os.environ.items() if k not in others}, "HOME": home}


def files_below(folder: str) -> set[str]:
    """Return every path below a folder."""
    return {
        os.path.join(top, name) for top, dirs, files in os.walk(folder) for name in dirs + files
    }


class Process:
    """A process that is known by a descriptor, so that it is never taken for another one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def has_ended(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait for its end."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def signal(self, number: int) -> None:
        """Send a signal; to one that has ended, none."""
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Forget it."""
        os.close(self._fd)


def children_of(pid: int) -> list[int]:
    """Return the children of a process, zombies too."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def status_of(pid: int) -> dict[str, str]:
    """Return what /proc/PID/status says."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def state_of(pid: int) -> str:
    """Return the letter of a process's state, as `ps` shows it."""
    return status_of(pid)["State"][0]


def memory_of(pid: int) -> dict[str, int]:
    """Return a process's memory in KiB, by the names of /proc/PID/smaps_rollup."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return {row[0].rstrip(":"): int(row[1]) for row in rows if row[-1] == "kB"}


def stat_of(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name; the first is the state."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(") ")[2].split()


def title_of(pid: int) -> str:
    """Return what `ps` shows; nothing of a process that is gone, or going."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descriptors_of(pid: int) -> dict[int, str]:
    """Return a process's open descriptors, and what they lead to."""
    folder = f"/proc/{pid}/fd"
    found = {}
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found[int(fd)] = os.readlink(os.path.join(folder, fd))
    return found


def kinds_of(descriptors: dict[int, str]) -> dict[int, str]:
    """Return descriptors by what they are, without the kernel's numbers."""
    return {fd: re.sub(r":?\[.*", "", name) for fd, name in descriptors.items()}


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: state_of(pid) == "T", "its standstill")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def in_background(work: Callable[[], object]) -> threading.Thread:
    """Do something beside the test; to be joined."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
