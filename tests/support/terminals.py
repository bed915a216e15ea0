"""A terminal with a `tetrad run` in it, as a shell or a container gives it one."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import termios
from typing import TYPE_CHECKING

from tests.support.processes import children_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.daemons import Daemon
    from tests.support.processes import Process

_READ_BYTES = 65536


class Screen:
    """A terminal, and the program that has been started in it: the front of a `tetrad run`.

    The daemon is a child of the front, or of the program's child where a shell stands between.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._ours, self._theirs = os.openpty()
        self._daemon = daemon
        self._shown = b""

    def run(self, *under: str, prepare: Callable[[], object] = lambda: None) -> Process:
        """Start the daemon, optionally under another program, which gets the terminal."""
        self.launch(*under, prepare=prepare)
        daemon = self._daemon
        until(lambda: os.path.exists(daemon.pidfile) and daemon.events("server.listening"), "it")
        daemon.adopt("")
        daemon.ports = [one["port"] for one in daemon.events("server.listening")]
        return daemon.master

    def launch(
        self, *under: str, command: str = "run", prepare: Callable[[], object] = lambda: None
    ) -> None:
        """Start `tetrad run`, or another command, and do not wait for it."""

        def adopt_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            prepare()

        daemon, terminal = self._daemon, self._theirs
        self.program = subprocess.Popen(
            [*under, *daemon.command, command, "-c", daemon.file],
            env=daemon.environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=adopt_terminal,  # noqa: PLW1509 - no thread runs here
        )
        os.close(terminal)

    @property
    def front(self) -> int:
        """The process of `tetrad run` that stays on the terminal."""
        daemon = self._daemon
        parents = (self.program.pid, *children_of(self.program.pid))
        return next(pid for pid in parents if daemon.pid in children_of(pid))

    def type(self, keys: bytes) -> None:
        """Type on the keyboard of the terminal."""
        os.write(self._ours, keys)

    def shown(self) -> str:
        """Return what the terminal has shown until now."""
        while self._ours >= 0 and select.select([self._ours], [], [], 0)[0]:
            try:
                self._shown += os.read(self._ours, _READ_BYTES)
            except OSError:  # EIO: no process has the terminal any more
                break
        return self._shown.decode("utf-8", "backslashreplace")

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        """End what has been started."""
        if self._ours >= 0:
            self.hang_up()
        self.program.kill()
        self.program.wait()
