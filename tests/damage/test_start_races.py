"""Starts that meet each other, a signal or a stop: there is one daemon, or none and no trace."""

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

from clients import ANSWER
from processes import PATIENCE_SECONDS, complain_of_defects, files_below, stopped, title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Figure, MakeDaemon
    from daemons import Daemon

INTERRUPTED = 128
"""And the signal's number: the status of a start that was undone."""

WAIT = 'read -r _; exec "$@"'
"""A shell's script that stands at the line until its input ends."""

IGNORE_CHILDREN = (
    "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    " os.execv(sys.argv[1], sys.argv[1:])"
)
"""A program that does what a shell would not: ignore SIGCHLD, and become another one."""

KEPT = {"home", "tetrad.log", "tetrad.yaml"}
"""What may be left of a daemon that is gone."""


def start_of(daemon: Daemon) -> list[str]:
    """Return the command that starts it."""
    return [sys.executable, "-m", "tetrad", "start", "-c", daemon.file]


@contextlib.contextmanager
def starting(daemon: Daemon, *wrapper: str) -> Iterator[subprocess.Popen[str]]:
    """Have a start under way; it has ended when the block has."""
    with subprocess.Popen(
        [*wrapper, *start_of(daemon)],
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
    """Wait for a start to end, and return its status and what it said."""
    out, err = starter.communicate(timeout=PATIENCE_SECONDS)
    complain_of_defects(err)
    return starter.returncode, out + err


def masters_of(daemon: Daemon) -> list[int]:
    """Return the masters and those who are about to be: all that know this daemon's file."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if daemon.file in title_of(pid)]


def assert_left_no_trace(daemon: Daemon) -> None:
    """Check that nothing runs, and that nothing lies about."""
    assert masters_of(daemon) == []
    assert set(os.listdir(daemon.folder)) <= KEPT, files_below(daemon.folder)
    assert daemon.tetrad("status").status == 3


def test_of_twenty_starts_at_the_same_instant_one_wins(
    prepared: MakeDaemon, figure: Figure
) -> None:
    """The others say that it runs, which is no failure, and the one that runs is whole."""
    asked = prepared()
    line, gun = os.pipe()
    command = ["/bin/sh", "-c", WAIT, "sh", *start_of(asked)]
    with contextlib.ExitStack() as stack:
        starters = [
            stack.enter_context(
                subprocess.Popen(
                    command, env=asked.environment, stdin=line, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(20)
        ]
        os.close(line)
        os.close(gun)
        told = [starter.communicate(timeout=PATIENCE_SECONDS)[0] for starter in starters]
    for pid in masters_of(asked):
        asked.watch(pid)
    asked.adopt(next(text for text in told if "started" in text))
    assert [starter.returncode for starter in starters] == [0] * 20
    others = [text for text in told if "started" not in text]
    assert others == [f"tetrad: already running (pid {asked.pid})\n"] * 19
    assert masters_of(asked) == [asked.pid]
    assert ANSWER.fullmatch(asked.connect().ask())
    figure("1 started, 19 said so")


def assert_is_undone_or_done(asked: Daemon, starter: subprocess.Popen[str], number: int) -> str:
    """Check that an interrupted start has left nothing, or was over already; return which."""
    status, said = ended(starter)
    is_done = "started" in said
    if is_done:
        asked.adopt(said)
        asked.stop()
    else:
        assert (status, said) in {
            (-number, ""),  # before there is anything to be undone
            (INTERRUPTED + number, interruption(number)),
            (INTERRUPTED + number, ""),  # Ctrl-C, before there is anything to be undone
        }
    assert_left_no_trace(asked)
    return "done" if is_done else "undone" if said else "not begun"


def interruption(number: int) -> str:
    """Return what an interrupted start says."""
    return f"tetrad: interrupted by {signal.Signals(number).name}: the start is undone\n"


def seconds_of_a_start(asked: Daemon) -> float:
    """Return how long a start takes that nobody interrupts."""
    began = time.monotonic()
    asked.start()
    took = time.monotonic() - began
    asked.stop()
    return took


def interrupt_at_many_moments(
    prepared: MakeDaemon, figure: Figure, number: int, moments: int
) -> None:
    """Interrupt starts earlier and later, from before they do anything to when they are done."""
    asked = prepared()
    took = min(seconds_of_a_start(asked) for _ in range(3))
    outcomes = []
    for moment in range(moments):
        with starting(asked) as starter:
            time.sleep(took * (0.3 + 0.8 * moment / moments))  # the moment is what is tested
            starter.send_signal(number)
            outcomes.append(assert_is_undone_or_done(asked, starter, number))
    figure(", ".join(f"{outcomes.count(one)} {one}" for one in sorted(set(outcomes))))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_is_interrupted_leaves_nothing(
    prepared: MakeDaemon, figure: Figure, number: int
) -> None:
    """Whenever the signal comes, there is a daemon and status 0, or nothing and another."""
    interrupt_at_many_moments(prepared, figure, number, 5)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_starts_that_are_interrupted_at_many_moments(
    prepared: MakeDaemon, figure: Figure, number: int
) -> None:
    """As above, at thirty moments for each signal."""
    interrupt_at_many_moments(prepared, figure, number, 30)


def until_it_has_a_pid(daemon: Daemon) -> int:
    """Wait until the master-to-be has written its pid, and return that."""

    def look() -> int:
        try:
            with open(daemon.pidfile, encoding="ascii") as file:
                return int(file.read())
        except (FileNotFoundError, ValueError):
            return 0

    return until(look, "a pid in the pidfile")


def test_a_start_that_is_interrupted_while_it_waits_takes_the_daemon_back(
    prepared: MakeDaemon,
) -> None:
    """The daemon is on its way by then: it is ended, and the start says so and ends."""
    asked = prepared()
    with starting(asked) as starter:
        pid = until_it_has_a_pid(asked)
        with stopped(pid):
            starter.send_signal(signal.SIGTERM)
        status, said = ended(starter)
    assert status == INTERRUPTED + signal.SIGTERM
    assert said == interruption(signal.SIGTERM)
    assert_left_no_trace(asked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_start_that_succeeded_says_so_before_it_can_be_ended(
    prepared: MakeDaemon, number: int
) -> None:
    """A signal that comes too late for it to be undone is no reason to keep silent about it."""
    asked = prepared()
    with starting(asked) as starter:
        assert starter.stdout is not None
        filling = fill(starter.stdout.fileno())
        until(lambda: waits_in(starter.pid).endswith("pipe_write"), "what a start has to say")
        starter.send_signal(number)
        status, said = ended(starter)
    assert (status, said.startswith(filling)) == (0, True)
    asked.adopt(said.removeprefix(filling))
    assert ANSWER.fullmatch(asked.connect().ask())


def fill(pipe: int) -> str:
    """Leave no room in a pipe, and return what is in it now."""
    filling = "." * fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    with open(f"/proc/self/fd/{pipe}", "w", encoding="ascii") as file:
        file.write(filling)
    return filling


def waits_in(pid: int) -> str:
    """Return the name of the kernel's function in which a process waits."""
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return file.read()


def test_a_start_whose_launcher_is_killed_is_undone(prepared: MakeDaemon) -> None:
    """A daemon that nobody waits for any more ends as soon as it would begin to serve."""
    asked = prepared()
    with starting(asked) as starter:
        pid = until_it_has_a_pid(asked)
        master = asked.watch(pid)
        with stopped(pid):
            starter.kill()
            starter.wait(PATIENCE_SECONDS)
    assert master.has_ended()
    assert_left_no_trace(asked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_a_master_that_is_not_up_yet_is_obeyed_when_it_is(
    prepared: MakeDaemon, number: int
) -> None:
    """From the moment its pid can be known it can be stopped, and then it stops in order."""
    asked = prepared()
    with starting(asked) as starter:
        asked.pid = until_it_has_a_pid(asked)
        master = asked.watch(asked.pid)
        with stopped(asked.pid):
            master.signal(number)
        status, said = ended(starter)
    assert (status, said[:24]) == (0, f"tetrad: started (pid {asked.pid})"[:24])
    assert master.has_ended()
    assert_left_no_trace(asked)
    assert asked.events()[-1]["event"] == "server.stopped"


def test_a_stop_during_a_start_is_obeyed(prepared: MakeDaemon) -> None:
    """`tetrad stop` ends a daemon that is only coming up, and waits until it is gone."""
    asked = prepared()
    with starting(asked) as starter:
        asked.watch(until_it_has_a_pid(asked))
        ran = asked.tetrad("stop")
        assert ended(starter)[0] == 0
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("tetrad: stopped (pid ")
    assert_left_no_trace(asked)


def test_a_start_does_not_mind_that_sigchld_is_ignored(prepared: MakeDaemon) -> None:
    """What whoever started us ignores is inherited, and with it the deaths of our children."""
    asked = prepared()
    with starting(asked, sys.executable, "-c", IGNORE_CHILDREN) as starter:
        status, said = ended(starter)
    assert status == 0, said
    asked.adopt(said)
    assert ANSWER.fullmatch(asked.connect().ask())


def test_a_start_behind_nohup_does_not_heed_sighup(prepared: MakeDaemon) -> None:
    """A signal that whoever started us ignores stays ignored while the daemon comes up."""
    asked = prepared()
    with starting(asked, "nohup") as starter:
        with stopped(until_it_has_a_pid(asked)):
            starter.send_signal(signal.SIGHUP)
        status, said = ended(starter)
    assert status == 0, said
    asked.adopt(said)


def test_two_sigterms_at_once_are_one_stop(daemon: MakeDaemon) -> None:
    """Signals on each other's heels end the daemon once, in order, with nothing left."""
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
