"""Starts and stops processes completely, and reads /proc.

The only module of the suite that starts programs. The command line or the source names them, hence
the silenced S603.
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
"""How long a server may take to stop after SIGTERM."""
ORPHAN_SECONDS = 3.0
"""How long a server's child processes may outlive it."""


_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")

BUILD_SECONDS = 60.0
"""How long a compilation may take."""


class MeasureError(Exception):
    """A figure could not be measured; the text has the reason."""


def run(command: Sequence[str], seconds: float) -> str:
    """Return a program's output; it must succeed within `seconds`."""
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasureError(str(error)) from error
    if done.returncode != 0:
        raise MeasureError(
            done.stderr.strip() or f"{command[0]} exited with status {done.returncode}"
        )
    return done.stdout


def build(source: Path, folder: Path) -> Path:
    """Compile a C program into a folder; return its path."""
    program = folder / source.stem
    run(
        ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)], BUILD_SECONDS
    )
    return program


def start(command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that Ctrl-C reaches the benchmark only."""
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
    """Start a program with pipes for input and output."""
    pipe = subprocess.PIPE
    return subprocess.Popen(  # noqa: S603
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def stop(leader: subprocess.Popen[bytes]) -> None:
    """Stop a server and all its descendants, whatever their process groups are."""
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
    """Yield a pidfd for each process that still exists; a pid could be reused."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


def _still_running(descriptors: Iterable[int], seconds: float) -> set[int]:
    """Return the pidfds of processes that have not ended within `seconds`."""
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
    """Return the pids of a process's children, their children, and so on."""
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
    except OSError:  # the process has ended
        return []


def title(pid: int) -> str:
    """Return the title that `ps` shows."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            return file.read().rstrip("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""  # the process has ended


def free_port() -> int:
    """Return a free TCP port; the kernel does not select the same one twice in a row."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Tell whether a server accepts connections."""
    with (
        contextlib.suppress(ConnectionRefusedError),
        socket.create_connection((LOOPBACK, port), timeout=1),
    ):
        return True
    return False


def answers(port: int, header: bytes = b"") -> bool:
    """Tell whether a server answers `time`.

    `header` is the header that a balancer sends first.
    """
    with (
        contextlib.suppress(ConnectionError, TimeoutError),
        socket.create_connection((LOOPBACK, port), timeout=1) as client,
    ):
        client.sendall(header + b"time")
        return bool(client.recv(1))
    return False


def private_kib(pid: int) -> int:
    """Return the memory in KiB that only this process uses, and that its end frees."""
    fields = _kib_fields(f"/proc/{pid}/smaps_rollup")
    return fields["Private_Clean"] + fields["Private_Dirty"]


def anonymous_kib(pid: int) -> int:
    """Return a process's anonymous memory in KiB.

    Unlike private memory it does not grow when other processes that map the same files end.
    """
    return _kib_fields(f"/proc/{pid}/smaps_rollup")["Anonymous"]


def system_kib() -> int:
    """Return the memory in KiB that all processes and connections use.

    Not MemAvailable: it leaves out pages in the processors' free lists, half a gigabyte after many
    clients have left, so that the next clients would seem too small. Before any client has left,
    the two agree within 3 %.
    """
    fields = _kib_fields("/proc/meminfo")
    return sum(fields[kind] for kind in ("AnonPages", "PageTables", "KernelStack", "Slab"))


def busy_us() -> float:
    """Return the CPU time in µs of all processors since the boot."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, _stolen = ticks
    return (user + nice + system + interrupts + soft_interrupts) * _TICK_US


def damon_us() -> float:
    """Return the CPU time in µs of the kernel's DAMON; 0 without DAMON."""
    return sum(_cpu_us(folder) for folder in Path("/proc").glob("[0-9]*") if _is_damon(folder))


def page_faults_of(pid: int) -> int:
    """Return a process's minor page faults, without its children's."""
    return int(_stat(Path(f"/proc/{pid}"))[7])


def _is_damon(process: Path) -> bool:
    with contextlib.suppress(OSError):  # the process has ended
        return (process / "comm").read_text().startswith("kdamond")
    return False


def _cpu_us(process: Path) -> float:
    user, system = _stat(process)[11:13]
    return (int(user) + int(system)) * _TICK_US


def _stat(process: Path) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may contain any character."""
    return (process / "stat").read_text().rpartition(") ")[2].split()


def _kib_fields(path: str) -> dict[str, int]:
    """Return the `Name:   123 kB` lines of a file in /proc."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1] == "kB"}
