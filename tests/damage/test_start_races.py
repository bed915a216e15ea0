"""Concurrent and interrupted starts: in the end there is one daemon, or none and no trace."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.daemons import Daemon
from tests.support.processes import (
    TIMEOUT_SECONDS,
    assert_no_traceback,
    files_below,
    stopped,
    title_of,
    until,
)
from tetrad.launch import pidfile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import Figure, MakeDaemon

INTERRUPTED = 128
"""Plus the signal's number: the exit status of a start that was undone."""

WAIT = 'read -r _; exec "$@"'
"""A shell script that waits for the end of its input, and then executes a command."""

IGNORE_CHILDREN = (
    "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    " os.execv(sys.argv[1], sys.argv[1:])"
)
"""A program that ignores SIGCHLD, and executes another one."""

KEPT = {"home", "tetrad.log", "tetrad.yaml"}
"""The files that may be left after a daemon has stopped."""


def start_command(daemon: Daemon) -> list[str]:
    """Return the command that starts the daemon."""
    return [sys.executable, "-m", "tetrad", "start", "-c", daemon.file]


@contextlib.contextmanager
def starting(daemon: Daemon, *wrapper: str) -> Iterator[subprocess.Popen[str]]:
    """Run a start during the block."""
    with subprocess.Popen(
        [*wrapper, *start_command(daemon)],
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as starter:
        try:
            yield starter
        finally:
            starter.kill()


def ended(starter: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a start; return its exit status and output."""
    out, err = starter.communicate(timeout=TIMEOUT_SECONDS)
    assert_no_traceback(err)
    return starter.returncode, out + err


def masters_of(daemon: Daemon) -> list[int]:
    """Return the pids of the daemon's masters, future ones included, by their command lines."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if daemon.file in title_of(pid)]


def assert_left_no_trace(daemon: Daemon) -> None:
    """Check that no process and no file is left."""
    assert masters_of(daemon) == []
    assert set(os.listdir(daemon.folder)) <= KEPT, files_below(daemon.folder)
    assert pidfile.read_state(daemon.pidfile).pid is None


def test_one_of_twenty_simultaneous_starts_succeeds(prepared: MakeDaemon, figure: Figure) -> None:
    """The others report that the daemon runs, which is no failure."""
    asked = prepared()
    read_end, write_end = os.pipe()
    command = ["/bin/sh", "-c", WAIT, "sh", *start_command(asked)]
    with contextlib.ExitStack() as stack:
        starters = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    env=asked.environment,
                    stdin=read_end,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(20)
        ]
        os.close(read_end)
        os.close(write_end)
        outputs = [starter.communicate(timeout=TIMEOUT_SECONDS)[0] for starter in starters]
    for pid in masters_of(asked):
        asked.watch(pid)
    asked.adopt(next(text for text in outputs if "started" in text))
    assert [starter.returncode for starter in starters] == [0] * 20
    others = [text for text in outputs if "started" not in text]
    assert others == [f"tetrad: already running (pid {asked.pid})\n"] * 19
    assert masters_of(asked) == [asked.pid]
    assert ANSWER.fullmatch(asked.connect().ask())
    figure("1 started, 19 reported that it runs")


def assert_is_undone_or_done(asked: Daemon, starter: subprocess.Popen[str], number: int) -> str:
    """Check that an interrupted start has left nothing, or was complete; return which."""
    status, output = ended(starter)
    is_done = "started" in output
    if is_done:
        asked.adopt(output)
        asked.stop()
    else:
        assert (status, output) in {
            (-number, ""),  # before there is anything to undo
            (INTERRUPTED + number, interruption(number)),
            (INTERRUPTED + number, ""),  # Ctrl-C, before there is anything to undo
        }
    assert_left_no_trace(asked)
    return "done" if is_done else "undone" if output else "not begun"


def interruption(number: int) -> str:
    """Return the message of an interrupted start."""
    return f"tetrad: interrupted by {signal.Signals(number).name}: the start is undone\n"


def duration_of_a_start(asked: Daemon) -> float:
    """Return how many seconds an undisturbed start takes."""
    began = time.monotonic()
    asked.start()
    duration = time.monotonic() - began
    asked.stop()
    return duration


@pytest.fixture(scope="module")
def start_seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Return how many seconds the fastest of three starts takes."""
    asked = Daemon(str(tmp_path_factory.mktemp("start")), {})
    return min(duration_of_a_start(asked) for _ in range(3))


def interrupt_at_many_moments(
    asked: Daemon, start_seconds: float, figure: Figure, number: int, moments: int
) -> None:
    """Interrupt starts at moments from before their first action until after their end."""
    outcomes = []
    for moment in range(moments):
        with starting(asked) as starter:
            time.sleep(start_seconds * (0.3 + 0.8 * moment / moments))  # the moment under test
            starter.send_signal(number)
            outcomes.append(assert_is_undone_or_done(asked, starter, number))
    figure(", ".join(f"{outcomes.count(one)} {one}" for one in sorted(set(outcomes))))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_start_is_undone(
    prepared: MakeDaemon, start_seconds: float, figure: Figure, number: int
) -> None:
    """Either the daemon runs and the status is 0, or nothing is left and it is not 0."""
    interrupt_at_many_moments(prepared(), start_seconds, figure, number, 5)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_starts_interrupted_at_many_moments(
    prepared: MakeDaemon, start_seconds: float, figure: Figure, number: int
) -> None:
    """As above, at 30 moments for each signal."""
    interrupt_at_many_moments(prepared(), start_seconds, figure, number, 30)


def wait_for_pid(daemon: Daemon) -> int:
    """Wait until the future master has written its pid, and return it."""

    def read() -> int:
        try:
            with open(daemon.pidfile, encoding="ascii") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return 0

    return until(read, "a pid in the pidfile")


def test_a_start_interrupted_while_it_waits_stops_the_daemon(
    prepared: MakeDaemon,
) -> None:
    """The starting daemon is ended before `tetrad start` exits."""
    asked = prepared()
    with starting(asked) as starter:
        pid = wait_for_pid(asked)
        with stopped(pid):
            starter.send_signal(signal.SIGTERM)
        status, output = ended(starter)
    assert status == INTERRUPTED + signal.SIGTERM
    assert output == interruption(signal.SIGTERM)
    assert_left_no_trace(asked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_successful_start_reports_it_before_a_signal_ends_it(
    prepared: MakeDaemon, number: int
) -> None:
    """A signal that is too late to undo the start does not suppress the message."""
    asked = prepared()
    with starting(asked) as starter:
        assert starter.stdout is not None
        filling = fill(starter.stdout.fileno())
        until(
            lambda: waits_in(starter.pid).endswith("pipe_write"), "the start to write its message"
        )
        starter.send_signal(number)
        status, output = ended(starter)
    assert (status, output.startswith(filling)) == (0, True)
    asked.adopt(output.removeprefix(filling))
    assert ANSWER.fullmatch(asked.connect().ask())


def fill(pipe: int) -> str:
    """Fill a pipe, and return what was written."""
    filling = "." * fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    with open(f"/proc/self/fd/{pipe}", "w", encoding="ascii") as file:
        file.write(filling)
    return filling


def waits_in(pid: int) -> str:
    """Return the name of the kernel function in which a process sleeps."""
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return file.read()


def test_a_daemon_stops_if_its_launcher_is_killed(prepared: MakeDaemon) -> None:
    """It stops as soon as it would begin to serve."""
    asked = prepared()
    with starting(asked) as starter:
        pid = wait_for_pid(asked)
        master = asked.watch(pid)
        with stopped(pid):
            starter.kill()
            starter.wait(TIMEOUT_SECONDS)
    assert master.has_ended()
    assert_left_no_trace(asked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_a_starting_master_is_handled_later(prepared: MakeDaemon, number: int) -> None:
    """From the moment its pid is known the daemon can be stopped in an orderly way."""
    asked = prepared()
    with starting(asked) as starter:
        asked.pid = wait_for_pid(asked)
        master = asked.watch(asked.pid)
        with stopped(asked.pid):
            master.signal(number)
        status, output = ended(starter)
    assert (status, output[:24]) == (0, f"tetrad: started (pid {asked.pid})"[:24])
    assert master.has_ended()
    assert_left_no_trace(asked)
    assert asked.events()[-1]["event"] == "server.stopped"


def test_tetrad_stop_ends_a_starting_daemon(prepared: MakeDaemon) -> None:
    """`tetrad stop` waits until the starting daemon has exited."""
    asked = prepared()
    with starting(asked) as starter:
        asked.watch(wait_for_pid(asked))
        ran = asked.tetrad("stop")
        assert ended(starter)[0] == 0
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("tetrad: stopped (pid ")
    assert_left_no_trace(asked)


def test_a_start_works_with_sigchld_ignored(prepared: MakeDaemon) -> None:
    """The caller's ignored SIGCHLD is inherited, and hides the exit of child processes."""
    asked = prepared()
    with starting(asked, sys.executable, "-c", IGNORE_CHILDREN) as starter:
        status, output = ended(starter)
    assert status == 0, output
    asked.adopt(output)
    assert ANSWER.fullmatch(asked.connect().ask())


def test_a_start_under_nohup_ignores_sighup(prepared: MakeDaemon) -> None:
    """A signal that the caller ignores stays ignored during the start."""
    asked = prepared()
    with starting(asked, "nohup") as starter:
        with stopped(wait_for_pid(asked)):
            starter.send_signal(signal.SIGHUP)
        status, output = ended(starter)
    assert status == 0, output
    asked.adopt(output)


def test_repeated_sigterm_stops_once(daemon: MakeDaemon) -> None:
    """Several signals in a row stop the daemon once, in order, with nothing left."""
    served = daemon()
    client = served.served()
    with stopped(served.pid):
        for _ in range(2):
            served.signal(signal.SIGTERM)
    for _ in range(20):
        served.signal(signal.SIGTERM)
    assert client.read_all() == b""
    assert served.is_gone()
    assert_left_no_trace(served)
    assert len(served.events("server.stopping")) == len(served.events("server.stopped")) == 1
