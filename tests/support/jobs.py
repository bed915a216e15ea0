"""Commands that run a program: their configuration and log lines, and a stubborn program."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from tests.support.processes import Process, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemons import Daemon, Event

WAIT = "until test -e go; do sleep 0.01; done"
"""A script that waits for the file `go` in its working directory."""

STUBBORN = """
(setsid sh -c 'trap "" TERM INT HUP; sleep 1000 & echo $$ $! > far.new; mv far.new far; wait' &)
trap "" TERM INT HUP
echo $$ > near.new; mv near.new near
"""
"""A program that ignores signals, and leaves another one in a session of its own, as orphans."""


def shell(script: str, **settings: object) -> dict[str, Any]:
    """Return a command that runs a script."""
    return {"run": ["sh", "-c", script], **settings}


def logged(daemon: Daemon, command: str = "prog") -> Event:
    """Wait for the log line of a command."""
    return daemon.wait_for("client.command", command=command)


def ask(daemon: Daemon, words: bytes = b"progquit", listener: int = 0) -> bytes:
    """Send commands, and return all answers."""
    client = daemon.connect(listener)
    client.send(words)
    client.half_close()
    return client.read_all()


class Stubborn:
    """The processes of a stubborn program: two that write their pids, and a child of the second."""

    def __init__(self, folder: Path) -> None:
        for name in ("near", "far", "go"):
            (folder / name).unlink(missing_ok=True)
        self.folder = folder
        self.script = f"cd {folder}\n{STUBBORN}"
        self._processes: list[Process] = []

    def watch(self) -> None:
        """Wait until all of them run."""
        pids = [*self._pids("near"), *self._pids("far")]
        self._processes = [Process(int(pid)) for pid in pids]

    @property
    def main(self) -> Process:
        """The program itself."""
        return self._processes[0]

    def _pids(self, name: str) -> list[str]:
        file = self.folder / name
        until(file.exists, f"the file {name}")
        return file.read_text().split()

    def release(self) -> None:
        """Let a program continue that waits for the file `go`."""
        (self.folder / "go").touch()

    def is_gone(self) -> bool:
        """Wait until all of them have ended."""
        return all(process.has_ended() for process in self._processes)

    def close(self) -> None:
        """Kill what is left."""
        for process in self._processes:
            process.signal(signal.SIGKILL)
            process.close()
