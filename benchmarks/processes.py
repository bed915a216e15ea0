"""Processes from the outside: starting and stopping them whole, and what /proc says of them.

The only module of the suite that starts programs: those it measures, named on its command line or
in its own source, hence the silenced S603.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 15.0
"""What a server gets to stop in after SIGTERM."""
ORPHAN_SECONDS = 3.0
"""What a server's children get to follow it in."""


_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")

BUILD_SECONDS = 60.0
"""What the compiler gets for a program of ours."""


class MeasureError(Exception):
    """A figure could not be taken; the text says of what and why."""


def run(command: Sequence[str], seconds: float) -> str:
    """Return what a program prints; it has to end well, within so many seconds."""
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasureError(str(error)) from error
    if done.returncode != 0:
        raise MeasureError(
            done.stderr.strip() or f"{command[0]} ended with status {done.returncode}"
        )
    return done.stdout


def build(source: Path, folder: Path) -> Path:
    """Compile a C program into a folder; return where it is."""
    program = folder / source.stem
    run(
        ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)], BUILD_SECONDS
    )
    return program


def start(command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own: a terminal's ^C is for us, who then stop it."""
    try:
        with output.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=output.parent,
                start_new_session=True,
            )
    except OSError as error:
        raise MeasureError(str(error)) from error


def start_piped(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program that is talked to while it runs."""
    pipe = subprocess.PIPE
    return subprocess.Popen(  # noqa: S603
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def stop(leader: subprocess.Popen[bytes]) -> None:
    """End a server and all its descendants, whatever group they went to, as xinetd's do."""
    descriptors = list(_pidfds(descendants(leader.pid)))
    try:
        leader.terminate()
        _wait_or_kill(leader)
        for descriptor in _still_running(descriptors, ORPHAN_SECONDS):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _wait_or_kill(leader: subprocess.Popen[bytes]) -> None:
    try:
        leader.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        leader.kill()
        leader.wait()


def _pidfds(pids: Iterable[int]) -> Iterable[int]:
    """Yield a descriptor for each process still there: it never comes to mean another one."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


def _still_running(descriptors: Iterable[int], seconds: float) -> set[int]:
    """Return those whose process has not ended within so many seconds."""
    running = set(descriptors)
    poller = select.poll()
    for descriptor in running:
        poller.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + seconds
    while running and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poller.poll(left * 1000):
            poller.unregister(descriptor)
            running.discard(descriptor)
    return running


def descendants(pid: int) -> set[int]:
    """Return the ids of a process's children, their children, and so on."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop())
        waiting += children
        found.update(children)
    return found


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:  # it ended meanwhile
        return []


def title(pid: int) -> str:
    """Return what `ps` shows of a process."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            return file.read().rstrip("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it is gone


def free_port() -> int:
    """Return a TCP port nobody listens on: the kernel does not hand one out twice running."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Tell whether somebody accepts connections."""
    with (
        contextlib.suppress(ConnectionRefusedError),
        socket.create_connection((LOOPBACK, port), timeout=1),
    ):
        return True
    return False


def answers(port: int, header: bytes = b"") -> bool:
    """Tell whether somebody answers `time`: to be connected is not yet to be served.

    `header` is what a balancer would say first.
    """
    with (
        contextlib.suppress(ConnectionError, TimeoutError),
        socket.create_connection((LOOPBACK, port), timeout=1) as client,
    ):
        client.sendall(header + b"time")
        return bool(client.recv(1))
    return False


def private_kib(pid: int) -> int:
    """Return the memory in KiB that only this process has: what it gives back when it ends."""
    fields = _kib_fields(f"/proc/{pid}/smaps_rollup")
    return fields["Private_Clean"] + fields["Private_Dirty"]


def own_kib(pid: int) -> int:
    """Return the memory in KiB that a process has made itself, not read from files.

    Unlike what is private, it does not grow when others that had mapped the same files end.
    """
    return _kib_fields(f"/proc/{pid}/smaps_rollup")["Anonymous"]


def system_kib() -> int:
    """Return the memory in KiB that processes and their connections take in the whole system.

    Not MemAvailable: it leaves out the pages that wait in each processor's own free list, half a
    gigabyte after a crowd has left, and so shows the next crowd too small. Before any has left,
    the two agree within 3 %.
    """
    fields = _kib_fields("/proc/meminfo")
    return sum(fields[kind] for kind in ("AnonPages", "PageTables", "KernelStack", "Slab"))


def busy_us() -> float:
    """Return for how many µs the processors have worked, all together, since the machine began."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, _stolen = ticks
    return (user + nice + system + interrupts + soft_interrupts) * _TICK_US


def damon_us() -> float:
    """Return for how many µs the kernel has looked which memory is used; 0 where it does not."""
    return sum(_times(folder) for folder in Path("/proc").glob("[0-9]*") if _is_damon(folder))


def page_faults_of(pid: int) -> int:
    """Return how many page faults a process has had that took no disk, its children's apart."""
    return int(_stat(Path(f"/proc/{pid}"))[7])


def _is_damon(process: Path) -> bool:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return (process / "comm").read_text().startswith("kdamond")
    return False


def _times(process: Path) -> float:
    user, system = _stat(process)[11:13]
    return (int(user) + int(system)) * _TICK_US


def _stat(process: Path) -> list[str]:
    """Return what /proc/PID/stat says behind the name, which may be anything."""
    return (process / "stat").read_text().rpartition(") ")[2].split()


def _kib_fields(path: str) -> dict[str, int]:
    """Return the `Name:   123 kB` lines of a file of /proc."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1] == "kB"}
