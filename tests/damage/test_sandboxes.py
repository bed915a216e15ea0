"""Kernels and sandboxes that refuse system calls, or lack /proc, memory files or room in pipes."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

import tetrad
from tests.support.jobs import Stubborn, ask, logged, shell
from tests.support.processes import TIMEOUT_SECONDS, UNDER_COVERAGE, run, title_of, until
from tests.support.refused_calls import needs_seccomp, refusing
from tests.support.strace import needs_strace

if TYPE_CHECKING:
    import pathlib

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

HINT = (
    "a seccomp filter refuses it: allow it (SystemCallFilter= in a unit, the seccomp profile of a "
    "container)"
)

REPLACED = (
    "close_range",
    "epoll_pwait2",
    "memfd_create",
    "pidfd_open",
    "pidfd_send_signal",
    "waitid",
)
"""System calls that tetrad does without."""

MAX_CLOSES = 5000
"""Far fewer than the limit of open files of any system, in four processes and two programs."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change limits and mounts")


def refuse(asked: Daemon, *calls: str) -> None:
    """Have a daemon and its commands run in a sandbox that refuses system calls."""
    asked.command = [*refusing(*calls), *asked.command]


@needs_seccomp
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_refused_calls_are_replaced(
    prepared: MakeDaemon, tmp_path: pathlib.Path, error: str
) -> None:
    """Jobs, a new logger, denials, reload, upgrade and stop; the job's processes are killed."""
    stubborn = Stubborn(tmp_path)
    program = shell(f"{stubborn.script}\nwhile :; do sleep 1; done", timeout="1s")
    asked = prepared(commands={"prog": shell("echo hello"), "long": program})
    refuse(asked, *[f"{call}:{error}" for call in REPLACED])
    asked.start()
    assert ask(asked) == b"hello\nquit"
    client = asked.connect()
    client.send(b"long")
    stubborn.watch()
    assert logged(asked, "long")["error"] == "timed out"
    client.close()
    assert stubborn.is_gone()
    stubborn.close()
    old = asked.logger
    os.kill(old, 9)
    until(lambda: asked.loggers not in ([], [old]), "a new logger")
    denied = asked.served(source="127.0.0.9")
    asked.configure(access={"deny": ["127.0.0.9"]})
    assert asked.tetrad("reload").status == 0
    assert denied.read_all() == b""
    assert asked.tetrad("upgrade").status == 0
    stopped = asked.tetrad("stop")
    assert (stopped.status, stopped.out) == (0, f"tetrad: stopped (pid {asked.pid})\n")


@needs_seccomp
@pytest.mark.parametrize(
    ("call", "name", "commands"),
    [
        ("prctl/38:ENOSYS", "PR_SET_NO_NEW_PRIVS): function not implemented", {}),
        (
            "prctl/36:EPERM",
            "PR_SET_CHILD_SUBREAPER): operation not permitted",
            {"prog": shell("true")},
        ),
        ("prctl/1:EPERM", "PR_SET_PDEATHSIG): operation not permitted", {"prog": shell("true")}),
    ],
)
def test_a_refused_call_that_nothing_replaces_is_named(
    prepared: MakeDaemon, call: str, name: str, commands: dict[str, object]
) -> None:
    """By `check` and by `start`, where the configuration needs it."""
    asked = prepared(commands=commands)
    refuse(asked, call)
    for command, status in (("check", 78), ("start", 1)):
        ran = asked.tetrad(command)
        assert (ran.status, ran.err) == (status, f"tetrad: prctl({name}; {HINT}\n")


@needs_seccomp
@pytest.mark.skipif(not shutil.which("strace"), reason="install strace")
@pytest.mark.skipif(UNDER_COVERAGE, reason="coverage opens files")
def test_no_process_tries_every_possible_descriptor(prepared: MakeDaemon) -> None:
    """Without close_range(2), the launcher, the master and a job close what is open."""
    asked = prepared(commands={"prog": shell("echo hello")})
    calls = os.path.join(asked.folder, "calls")
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", "trace=close"]
    asked.command = [*refusing("close_range:ENOSYS"), *strace, "-o", calls, *asked.command]
    command = [*asked.command, "run", "-c", asked.file]
    traced = subprocess.Popen(command, env=asked.environment, start_new_session=True)
    try:
        asked.ports = [asked.wait_for("server.listening")["port"]]
        assert ask(asked) == b"hello\nquit"
    finally:
        with open(asked.pidfile, encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGTERM)
        try:
            traced.wait(TIMEOUT_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(traced.pid, signal.SIGKILL)
    with open(calls, encoding="ascii") as lines:
        assert sum(1 for _ in lines) < MAX_CLOSES


def test_a_limit_of_file_sizes_does_not_kill_the_logger(daemon: MakeDaemon) -> None:
    """What the log has no room for is counted as lost; other sessions are served."""
    served = daemon()
    served.wait_for("server.listening")
    size = os.stat(served.log_file).st_size
    old = served.logger
    resource.prlimit(old, resource.RLIMIT_FSIZE, (size + 300, size + 300))
    for _ in range(3):
        served.served().quit()
    until(lambda: served.status()["log"]["lost"] > 0, "lost lines in the status")
    assert served.loggers == [old]
    assert os.stat(served.log_file).st_size <= size + 300


@needs_root
def test_without_proc_and_dev_shm(prepared: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """In a folder as root, with a read-only system, without /proc: it runs, but for jobs."""
    root = tmp_path / "root"
    root.mkdir()
    asked = prepared()
    script = f"""
        set -e
        mount --rbind / {root}; mount --make-rslave {root}
        umount -l {root}/proc
        mount -t tmpfs -o ro none {root}/dev/shm
        exec chroot {root} "$@"
    """  # noqa: S108 - in a mount namespace
    sandbox = ["unshare", "--mount", "sh", "-c", script, "sh"]
    asked.command = [*sandbox, *asked.command]
    asked.start()
    client = asked.connect()
    client.send(b"quit")
    assert client.read_all() == b"quit"
    assert asked.tetrad("status").status == 0
    assert asked.tetrad("reload").status == 0
    stopped = asked.tetrad("stop")
    assert (stopped.status, stopped.out) == (0, f"tetrad: stopped (pid {asked.pid})\n")
    asked.configure(commands={"prog": shell("true")})
    ran = asked.tetrad("check")
    expected = "tetrad: commands.prog: programs and functions need /proc: mount it\n"
    assert (ran.status, ran.err) == (78, expected)


@needs_root
def test_a_read_only_root_is_named(tmp_path: pathlib.Path) -> None:
    """By `check`, for each file at its default place."""
    script = f'mount --bind {tmp_path} {tmp_path}; mount -o remount,bind,ro {tmp_path}; exec "$@"'
    (tmp_path / "state").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.path.dirname(tetrad.__path__[0]) + ":" + sysconfig.get_path("purelib"),
    }
    file = tmp_path / "tetrad.yaml"
    file.write_text("daemon: {pidfile: t.pid, control: t.sock}\nlog: {file: t.log}\n")
    command = [sys.executable, "-m", "tetrad", "check", "-c", str(file)]
    ran = run(["unshare", "--mount", "sh", "-c", script, "sh", *command], environment)
    assert ran.status == 78
    reason = "read-only file system; name another path, or make the file system writable"
    assert ran.err.splitlines() == [
        f"tetrad: daemon.pidfile: {tmp_path}/t.pid: {reason}",
        f"tetrad: daemon.control: {tmp_path}/t.sock: {reason}",
        f"tetrad: log.file: {tmp_path}/t.log: {reason}",
    ]


@needs_root
def test_small_pipes_lose_no_events(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """A user over the limit of pipe-user-pages-soft gets pipes of one or two pages."""
    hog = (
        "import os, sys, time, resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "pipes = [os.pipe() for _ in range(1100)]\n"
        "print('full', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hog], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as full:
        assert full.stdout is not None
        assert full.stdout.readline() == b"full\n"
        served = daemon(folder=nobodys_folder, daemon={"user": "nobody"})
        served.wait_for("server.started")  # events do not wait for a logger that begins
        for _ in range(30):
            client = served.connect()
            client.send(b"time" * 20 + b"quit")
            client.read_all()
        served.wait_for("client.disconnected", count=30)
        assert served.status()["log"]["lost"] == 0
        served.stop()


@needs_strace
def test_a_master_that_cannot_show_a_title(prepared: MakeDaemon) -> None:
    """As in gVisor, where no process can write to its own memory by /proc."""
    asked = prepared()
    name, own = asked.command, "/proc/self/mem"
    fails = ["-e", "trace=openat", "-P", own, "-e", "inject=openat:error=EACCES"]
    asked.command = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", *fails, *name]
    asked.start()
    asked.command = name
    assert title_of(asked.pid).startswith(sys.executable)
    assert asked.tetrad("status").status == 0
    assert asked.tetrad("start").out == f"tetrad: already running (pid {asked.pid})\n"
    assert asked.tetrad("stop").out == f"tetrad: stopped (pid {asked.pid})\n"
