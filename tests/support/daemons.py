"""Daemons under test: start them, read their logs, and stop them by pid."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any, Self

import msgspec
import yaml

from tests.support import forked_commands
from tests.support.clients import ANSWER, ANSWER_BYTES, Client
from tests.support.log_lines import Event, LogLines
from tests.support.processes import (
    TIMEOUT_SECONDS,
    UNDER_COVERAGE,
    Process,
    Ran,
    assert_no_traceback,
    children_of,
    descriptors_of,
    environment,
    files_below,
    in_background,
    run,
    state_of,
    status_of,
    stopped,
    title_of,
    until,
)
from tetrad.ipc import control_client, control_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ANSWER",
    "ANSWER_BYTES",
    "TIMEOUT_SECONDS",
    "UNDER_COVERAGE",
    "Client",
    "Daemon",
    "Event",
    "Process",
    "Ran",
    "assert_no_traceback",
    "children_of",
    "descriptors_of",
    "environment",
    "files_below",
    "in_background",
    "run",
    "state_of",
    "status_of",
    "stopped",
    "title_of",
    "until",
]
"""What most tests need, so that they import from one module."""

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The one in C, if PyYAML has it, is ten times as fast."""

_PORT = re.compile(r":(\d+) \((?:command|echo)\)")
"""A listener's port in the output of `tetrad start` and `tetrad status`."""

_OTHER_DAEMONS = re.compile(r"^tetrad: other running daemons: .*\n", re.MULTILINE)
"""Daemons of other tests, which a command names."""

ROOT_WARNING = (
    "tetrad: warning: daemon.user is not set, so the handlers run as root; set it to a user that"
    " nothing else runs as, such as tetrad (useradd --system tetrad)\n"
)
"""The warning for a daemon that root starts without `daemon.user`, as most tests do."""


def about_this_daemon(errors: str) -> str:
    """Return what a command printed, without ROOT_WARNING and without daemons of other tests."""
    return _OTHER_DAEMONS.sub("", errors.replace(ROOT_WARNING, ""))


class Daemon:
    """A daemon with a folder, a configuration file, a log and a pidfile of its own.

    `allow_lost_handlers` and `allow_session_errors` turn off two checks of `finish`.
    """

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.file = os.path.join(folder, "tetrad.yaml")
        self.pidfile = os.path.join(folder, "tetrad.pid")
        self.environment = environment(os.path.join(folder, "home"))
        self.command = list(forked_commands.COMMAND)
        self.settings: dict[str, Any] = {
            "listen": [{"port": 0}],
            "daemon": {"pidfile": "tetrad.pid", "control": "control.sock"},
            "log": {"file": "tetrad.log"},
        }
        self.allow_lost_handlers = False
        self.allow_session_errors = False
        self.pid = 0
        self.ports: list[int] = []
        self.configure(**settings)
        self._watched: list[Process] = []
        self._clients: list[Client] = []
        self._log_file = os.path.join(folder, "tetrad.log")
        self._log = LogLines(self._log_file)
        self._foreground: subprocess.Popen[bytes] | None = None

    def configure(self, **settings: object) -> None:
        """Change settings in the configuration file."""
        for section, values in settings.items():
            self.settings[section] = _merged(self.settings.get(section), values)
        with open(self.file, "w", encoding="utf-8") as file:
            yaml.dump(self.settings, file, Dumper=_DUMPER)

    @property
    def log_file(self) -> str:
        """The path of the log that `events` reads."""
        return self._log_file

    @log_file.setter
    def log_file(self, path: str) -> None:
        self._log_file = path
        self._log = LogLines(path)

    def tetrad(self, *arguments: str, **options: Any) -> Ran:  # noqa: ANN401
        """Run a tetrad command with this daemon's file.

        ROOT_WARNING and what it says of the daemons of other tests are removed from its output.
        """
        arguments = *arguments, "-c", self.file
        ran = forked_commands.tetrad(arguments, self.environment, self.command, **options)
        return ran._replace(err=about_this_daemon(ran.err))

    @property
    def not_running(self) -> str:
        """What a command prints if the daemon does not run."""
        return f"tetrad: not running (pidfile {self.pidfile})\n"

    def start(self) -> Self:
        """Start the daemon; fail if it does not start."""
        ran = self.tetrad("start")
        assert ran.status == 0, ran.err
        self.adopt(ran.out)
        return self

    def adopt(self, message: str) -> None:
        """Register the running master, and its ports from the output of `tetrad start`."""
        with open(self.pidfile, encoding="ascii") as file:
            self.pid = int(file.read())
        self.watch(self.pid)
        self.ports = [int(port) for port in _PORT.findall(message)]

    def run(self, output: str, under: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Run `tetrad run` in a process group of its own, optionally `under` another program."""
        command = [*under, *self.command, "run", "-c", self.file]
        with open(output, "wb") as out:
            self._foreground = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.pid = self._foreground.pid
        self.watch(self.pid)
        return self._foreground

    def fill_disk(self) -> None:
        """Have the daemon write its log to a full disk from now on; `events` reads the log before.

        A start on a full disk is refused.
        """
        path, self.log_file = self._log_file, f"{self._log_file}.1"
        os.rename(path, self.log_file)
        os.symlink("/dev/full", path)
        self.signal(signal.SIGUSR1)
        until(lambda: "/dev/full" in descriptors_of(self.logger).values(), "the log on a full disk")

    def watch(self, pid: int) -> Process:
        """Register a process that must have ended when the test ends."""
        process = Process(pid)
        self._watched.append(process)
        return process

    @property
    def master(self) -> Process:
        """The running master."""
        return next(process for process in self._watched if process.pid == self.pid)

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.master.signal(number)

    @property
    def logger(self) -> int:
        """The pid of the logger; waits until it runs."""
        return until(lambda: self.loggers, "the logger")[0]

    @property
    def loggers(self) -> list[int]:
        """The pids of the running loggers: one, or none while the logger is replaced."""
        return self._titled("tetrad: logger")

    @property
    def handlers(self) -> list[int]:
        """The pids of the handlers."""
        return self._titled("tetrad: handler")

    @property
    def processes(self) -> list[int]:
        """The pids of the master and its children."""
        return [self.pid, *children_of(self.pid)]

    def _titled(self, title: str) -> list[int]:
        return [pid for pid in children_of(self.pid) if title_of(pid).startswith(title)]

    def status(self) -> dict[str, Any]:
        """Return what `tetrad status --json` prints, without starting a program for it."""
        path = os.path.join(self.folder, self.settings["daemon"]["control"])
        answer = control_client.ask(path, "status", control_messages.Status, TIMEOUT_SECONDS)
        status: dict[str, Any] = msgspec.to_builtins(answer)
        return status

    def events(self, event: str | None = None, **fields: object) -> list[Event]:
        """Return the log lines, or those of one event with these fields."""
        return self._log.find(event, **fields)

    def wait_for(self, event: str, *, count: int = 1, **fields: object) -> Event:
        """Wait for `count` such lines in the log, and return the last one."""
        seen = until(
            lambda: (lines := self.events(event, **fields))[count - 1 :] and lines,
            f"{count} x {event} {fields} in {self.log_file}",
        )
        return seen[count - 1]

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.ports[0]

    def connect(self, listener: int = 0, host: str = "127.0.0.1", source: str = "") -> Client:
        """Connect to a listener, by its index among the TCP listeners."""
        where = (host, self.ports[listener])
        connected = socket.create_connection(where, TIMEOUT_SECONDS, (source, 0))
        return self._keep(connected)

    def connect_with_small_buffers(self, listener: int = 0) -> Client:
        """Connect with small buffers on both sides, so that a few unread answers fill them."""
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        connected.connect(("127.0.0.1", self.ports[listener]))
        return self._keep(connected)

    def connect_to_path(self, name: str) -> Client:
        """Connect to a Unix socket in the daemon's folder."""
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(os.path.join(self.folder, name))
        except OSError:
            connected.close()
            raise
        return self._keep(connected)

    def _keep(self, connected: socket.socket) -> Client:
        """Register a connection, which is closed with the test."""
        self._clients.append(Client(connected, self._handler_of))
        return self._clients[-1]

    def _handler_of(self, client: str) -> int:
        """Return the pid of a client's handler; 0 if it has none yet."""
        return next(iter(self._titled(f"tetrad: handler {client}")), 0)

    def served(self, listener: int = 0, source: str = "") -> Client:
        """Return a connected client that has had an answer and whose handler waits for input."""
        client = self.connect(listener, source=source)
        assert ANSWER.fullmatch(client.ask())
        until(lambda: self._handler_of(client.name), f"a handler of {client.name}")
        return client

    def hand_over(self) -> None:
        """End all sessions, and leave out of `events` what was logged until then."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._log.show()
        until(self._is_idle, "the end of all sessions in the log")
        self._log.hide()

    def _is_idle(self) -> bool:
        """Tell whether all sessions have ended, and their ends are in the log."""
        status = self.status()
        ended = len(self.events("client.disconnected"))
        return not status["clients"]["now"] and status["accepted"] == ended

    def is_gone(self) -> bool:
        """Wait for the end of the master; return whether it has ended."""
        return self.master.has_ended()

    def stop(self) -> None:
        """Stop the daemon with SIGTERM if it runs, and check that all its processes have ended."""
        for master in self._watched[:]:
            if master.pid == self.pid and not master.has_ended(0):
                self._watch_children()
                master.signal(signal.SIGTERM)
                master.has_ended()
        self._wait_for_watched()

    def _watch_children(self) -> None:
        for pid in children_of(self.pid):
            with contextlib.suppress(ProcessLookupError):
                self.watch(pid)

    def _wait_for_watched(self) -> None:
        if self._foreground is not None:
            self._foreground.wait(TIMEOUT_SECONDS)
        left = [process.pid for process in self._watched if not process.has_ended()]
        for process in self._watched:
            process.signal(signal.SIGKILL)
            process.close()
        self._watched.clear()
        assert not left, f"processes that outlived the daemon: {left}"

    def finish(self) -> None:
        """Stop all processes; fail if a session ended with an error or a handler was lost."""
        for client in self._clients:
            client.close()
        self._log.show()
        stray = self._stray()
        if stray:
            self.pid = self.watch(stray).pid
        self.stop()
        assert not stray, "a failed start left a daemon running"
        if self.settings["log"].get("format", "json") == "json":
            assert self.allow_session_errors or not self.events(
                "client.disconnected", reason="error"
            )
            assert self.allow_lost_handlers or not self.events("handler.lost")

    def _stray(self) -> int:
        """Return the pid of a running master that the test has not registered, or 0."""
        if not os.path.isfile(self.pidfile):
            return 0
        try:
            with open(self.pidfile, encoding="ascii") as file:
                pid = int(file.read())
        except (OSError, ValueError):
            return 0
        is_ours = title_of(pid) == f"tetrad: master {self.file}"
        return pid if is_ours and pid not in [known.pid for known in self._watched] else 0


def _merged(old: object, new: object) -> object:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **new}
    return new
