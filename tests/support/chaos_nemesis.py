"""The nemesis of a chaos run: it disturbs a daemon, and judges nothing but its own commands.

An operator runs commands one after another; at the same time an attacker sends signals to the
daemon's processes.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from tests.support.chaos_clients import BALANCED, COMMAND, ECHO, PROGRAM
from tests.support.jobs import shell
from tests.support.kill_points import GONE_SECONDS
from tests.support.processes import Process, assert_no_traceback, children_of, title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.daemons import Daemon

    Burst = Callable[[str, int], object]
    """Has so many clients come to a service at once."""

PORTS = {COMMAND: (11_000,), ECHO: (11_001, 11_002), BALANCED: (11_003, 11_004)}
"""Where each service may be."""

COMMANDS = ("start", "stop", "restart", "reload", "upgrade", "status")

FEW_CLIENTS = 2
"""The limit at a full table."""

PAUSE_SECONDS = 0.4
"""The longest time for which a process is stopped."""

SECONDS_OF_A_COMMAND = 0.6
"""The time within which the master is killed or stopped while a command is running."""

BACKLOG = 80
"""More clients than the master accepts in one turn of its loop, even if some come late."""


class Nemesis:
    """Disturbs a daemon on `address`; a command that does not do what it says fails the test.

    `killed` counts the handlers that it has killed.
    """

    def __init__(self, daemon: Daemon, rng: random.Random, address: str) -> None:
        self._daemon = daemon
        self._rng = rng
        self._attacks = random.Random(rng.getrandbits(32))  # noqa: S311 - it must be repeatable
        self._address = address
        self._place = dict.fromkeys(PORTS, 0)
        self._logs = 0
        self._over = threading.Event()
        self.killed = 0
        self.disturbances = 0
        self.configure()

    def place(self, service: str) -> tuple[str, int]:
        """Return where a service is, or was a moment ago."""
        return self._address, PORTS[service][self._place[service]]

    def configure(self) -> None:
        """Write the file with the listeners at their present places."""
        listeners = [{"address": place[0], "port": place[1]} for place in map(self.place, PORTS)]
        command, echo, balanced = listeners
        trusted = {"trusted": ["127.0.0.0/8"]}
        balanced_service = {"service": "echo", "proxy": trusted}
        self._daemon.configure(
            listen=[command, echo | {"service": "echo"}, balanced | balanced_service],
            limits={"clients": 1000},
            daemon={"working_directory": self._daemon.folder},
            commands={"prog": shell(PROGRAM)},
        )

    def disturb(self, seconds: float, burst: Burst) -> None:
        """Operate and attack the daemon for so long; have a `burst` of clients now and then."""
        self._burst = burst
        until = time.monotonic() + seconds
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            attacks = pool.submit(self._attack)
            try:
                while time.monotonic() < until and not attacks.done():
                    self._do(self._rng.choice(self._operations))
                    time.sleep(self._rng.choice((0.0, 0.1, 0.5)))  # undisturbed by the operator
            finally:
                self._over.set()
        attacks.result()

    def _attack(self) -> None:
        while not self._over.wait(self._attacks.choice((0.0, 0.1, 0.5, 1.0))):
            self._do(self._attacks.choice(self._signals))

    def _do(self, disturbance: Callable[[], object]) -> None:
        began = time.time()
        disturbance()
        self.disturbances += 1
        name = disturbance.__name__
        print(f"{began:.3f} to {time.time():.3f} {name}")  # noqa: T201 - shown if the test fails

    # The operator

    @property
    def _operations(self) -> list[Callable[[], object]]:
        return [
            self.kill_and_start,
            self.kill_during_a_command,
            self.queue_during_a_command,
            self.run_commands_at_once,
            self.stop_and_start,
            self.stop_at_once,
            self.stop_with_a_backlog,
            self.restart,
            self.move_a_port,
            self.move_a_port_with_a_backlog,
            self.change_the_handlers,
            self.fill_the_table,
            self.reload_a_bad_file,
            self.upgrade,
        ]

    def kill_and_start(self) -> None:
        """Kill the master; the next start works at once, and the others end soon."""
        others = [process for pid in children_of(self._daemon.pid) if (process := _held(pid))]
        self._daemon.signal(signal.SIGKILL)
        self._daemon.is_gone()
        gone_by = time.monotonic() + GONE_SECONDS + PAUSE_SECONDS
        try:
            self._daemon.start()
            left = [
                one.pid for one in others if not one.has_ended(max(0.0, gone_by - time.monotonic()))
            ]
            assert not left, f"outlived their master: {[(pid, title_of(pid)) for pid in left]}"
        finally:
            for one in others:
                one.close()

    def kill_during_a_command(self) -> None:
        """Kill the master while a command talks to it; the next start works."""
        with self._running(self._rng.choice(COMMANDS)):
            time.sleep(self._rng.uniform(0, SECONDS_OF_A_COMMAND))
            self._daemon.signal(signal.SIGKILL)
        self._daemon.start()

    def queue_during_a_command(self) -> None:
        """Have clients queue while a command talks to the master; then a start works."""
        with self._running(self._rng.choice(COMMANDS)):
            time.sleep(self._rng.uniform(0, SECONDS_OF_A_COMMAND))
            with self._backlog(self._rng.choice((COMMAND, ECHO, BALANCED))):
                pass
        self._daemon.start()

    @contextlib.contextmanager
    def _running(self, command: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command during the block, and wait for its end."""
        with subprocess.Popen(
            [*self._daemon.command, command, "-c", self._daemon.file],
            env=self._daemon.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            yield running
            _, errors = running.communicate()
        assert_no_traceback(errors)

    @contextlib.contextmanager
    def _backlog(self, service: str) -> Iterator[None]:
        """Stop the master during the block; then more clients wait for it than usual."""
        self._daemon.signal(signal.SIGSTOP)
        try:
            yield
            self._burst(service, BACKLOG)
            time.sleep(self._rng.uniform(PAUSE_SECONDS / 2, PAUSE_SECONDS))
        finally:
            self._daemon.signal(signal.SIGCONT)

    def run_commands_at_once(self) -> None:
        """Run two commands at the same time, whatever they are; then a start works."""
        first, second = self._rng.choices(COMMANDS, k=2)
        with self._running(first), self._running(second):
            pass
        self._daemon.start()

    def stop_at_once(self) -> None:
        """Stop the daemon without waiting for sessions, and start it."""
        self._daemon.signal(signal.SIGQUIT)
        assert self._daemon.is_gone(), "the master does not stop"
        self._daemon.start()

    def stop_and_start(self) -> None:
        """Stop the daemon, and start it."""
        self._run("stop")
        self._daemon.start()

    def stop_with_a_backlog(self) -> None:
        """Stop the daemon while clients queue whom it has not accepted yet."""
        with self._backlog(COMMAND):
            self._daemon.signal(signal.SIGTERM)
        assert self._daemon.is_gone(), "the master does not stop"
        self._daemon.start()

    def restart(self) -> None:
        """Restart the daemon."""
        self._daemon.adopt(self._run("restart"))

    def move_a_port(self) -> None:
        """Move one of the listeners to another port."""
        service = self._rng.choice((ECHO, BALANCED))
        self._place[service] = 1 - self._place[service]
        self.configure()
        self._run("reload")

    def move_a_port_with_a_backlog(self) -> None:
        """Move a listener while clients queue there."""
        before = self._place[ECHO]
        self._place[ECHO] = 1 - before
        self.configure()
        self._place[ECHO] = before  # where clients connect until the end of the reload
        with self._running("reload") as reload:
            time.sleep(self._rng.uniform(0, SECONDS_OF_A_COMMAND))
            with self._backlog(ECHO):
                pass
        assert reload.returncode == 0
        self._place[ECHO] = 1 - before

    def change_the_handlers(self) -> None:
        """Serve in another way from now on."""
        spare, each = self._rng.choice((0, 0, 3)), self._rng.choice((1, 5))
        self._daemon.configure(handlers={"spare": spare, "clients_each": each})
        self._run("reload")

    def fill_the_table(self) -> None:
        """Allow few clients for a moment, fewer than there are."""
        self._daemon.configure(limits={"clients": FEW_CLIENTS})
        self._run("reload")
        time.sleep(0.3)
        self.configure()
        self._run("reload")

    def reload_a_bad_file(self) -> None:
        """Reload a file with an error, which changes nothing."""
        self._daemon.configure(handlers={"spare": "many"})
        self._run("reload", 78)
        self._daemon.configure(handlers={"spare": 0})

    def upgrade(self) -> None:
        """Have the daemon execute itself."""
        self._run("upgrade")

    def _run(self, command: str, status: int = 0) -> str:
        ran = self._daemon.tetrad(command)
        assert ran.status == status, (command, ran)
        return ran.out

    # The attacker

    @property
    def _signals(self) -> list[Callable[[], object]]:
        return [
            *4 * [self.kill_a_handler],
            *4 * [self.pause_a_handler],
            *3 * [self.pause_the_logger],
            *3 * [self.pause_the_master],
            *3 * [self.rotate_the_log],
            self.kill_the_logger,  # rarely: what it loses excuses clients without a line
        ]

    def kill_a_handler(self) -> None:
        """Kill one of the handlers, if there is one."""
        with self._one_titled("tetrad: handler") as handler:
            if handler:
                self.killed += 1
                handler.signal(self._attacks.choice((signal.SIGKILL, signal.SIGSEGV)))

    def pause_a_handler(self) -> None:
        """Stop one of the handlers for a moment."""
        self._pause("tetrad: handler")

    def kill_the_logger(self) -> None:
        """Kill the logger, which is replaced."""
        with self._one_titled("tetrad: logger") as logger:
            if logger:
                logger.signal(signal.SIGKILL)

    def pause_the_logger(self) -> None:
        """Stop the logger for a moment."""
        self._pause("tetrad: logger")

    def pause_the_master(self) -> None:
        """Stop the master for a moment, while clients go on connecting."""
        self._pause("tetrad: master")

    def rotate_the_log(self) -> None:
        """Move the log away, as logrotate does."""
        self._logs += 1
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._daemon.log_file, f"{self._daemon.log_file}.{self._logs}")
        with self._one_titled("tetrad: master") as master:
            if master:
                master.signal(signal.SIGUSR1)

    def _pause(self, title: str) -> None:
        with self._one_titled(title) as process:
            if process:
                process.signal(signal.SIGSTOP)
                try:
                    time.sleep(self._attacks.uniform(0, PAUSE_SECONDS))
                finally:
                    process.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def _one_titled(self, title: str) -> Iterator[Process | None]:
        """Hold one of the daemon's processes with a title; None if there is none."""
        pids = [self._daemon.pid, *children_of(self._daemon.pid)]
        self._attacks.shuffle(pids)
        for pid in pids:
            if title_of(pid).startswith(title) and (process := _held(pid)):
                with contextlib.closing(process):
                    yield process if title_of(pid).startswith(title) else None
                return
        yield None


def _held(pid: int) -> Process | None:
    """Hold a process; None if it has ended."""
    try:
        return Process(pid)
    except ProcessLookupError:
        return None
