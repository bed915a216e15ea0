"""Containers: users and capabilities that are missing, namespaces of processes, /proc, clocks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import TIMEOUT_SECONDS, Daemon
from tests.support.processes import UNDER_COVERAGE, children_of, until
from tests.support.system_programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces"),
    pytest.mark.skipif(not shutil.which("unshare"), reason="install util-linux"),
]

PID_NAMESPACE = ("unshare", "--fork", "--pid", "--mount-proc")


def without(capability: str) -> list[str]:
    """Return the beginning of a command line whose program, as root, lacks a capability."""
    return ["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"]


@pytest.mark.parametrize(
    "sandbox",
    [without("setuid"), without("setgid"), ["unshare", "--user", "--map-root-user"]],
    ids=["CAP_SETUID", "CAP_SETGID", "user namespace"],
)
def test_root_that_cannot_become_another_user_is_named(
    prepared: MakeDaemon, sandbox: list[str]
) -> None:
    """By `check` and by `start`, also if functions are to be checked as that user."""
    asked = prepared(daemon={"user": "nobody"}, commands={"call": {"call": "json:dumps"}})
    asked.command = [*sandbox, *asked.command]
    for command, status in (("check", 78), ("start", 4)):
        ran = asked.tetrad(command)
        reason = "cannot change to user nobody (uid 65534, gid 65534): operation not permitted"
        assert (ran.status, ran.err.count(reason)) == (status, 1), ran
        assert "that needs CAP_SETUID and CAP_SETGID" in ran.err


def test_root_without_cap_kill_is_named(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """It cannot stop a daemon of another user."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"})
    served.command = [*without("kill"), *served.command]
    ran = served.tetrad("stop")
    text = f"tetrad: pid {served.pid}: permission denied; root needs CAP_KILL to stop it\n"
    assert (ran.status, ran.err) == (4, text)


def test_a_daemon_in_another_container_is_named(daemon: MakeDaemon) -> None:
    """The pidfile is on a volume that both share; no process of this container has the lock."""
    served = daemon()
    os.unlink(os.path.join(served.folder, "control.sock"))
    served.command = [*PID_NAMESPACE, "sh", "-c", '"$@"; exit $?', "sh", *served.command]
    reason = "locked by a daemon in another PID namespace (container)"
    for command, status in (("start", 1), ("stop", 1), ("status", 4)):
        ran = served.tetrad(command)
        assert (ran.status, f"{served.pidfile}: {reason}" in ran.err) == (status, True), ran


@pytest.mark.parametrize("option", ["hidepid=2", "subset=pid"])
def test_a_proc_that_hides_most(prepared: MakeDaemon, nobodys_folder: str, option: str) -> None:
    """Root sees its daemon, and other users are told that they may not stop it."""
    served = prepared(folder=nobodys_folder, daemon={"user": "nobody"})
    script = f'mount -t proc -o {option} proc /proc; exec "$@"'
    served.command = ["unshare", "--mount", "sh", "-c", script, "sh", *served.command]
    served.start()
    as_other_user = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"]
    at = len(served.command) - 3  # before Python
    root = served.command
    served.command = [*root[:at], *as_other_user, *root[at:]]
    assert served.tetrad("stop").status == 4
    served.command = root
    assert served.tetrad("stop").out == f"tetrad: stopped (pid {served.pid})\n"


def test_a_machine_that_has_just_booted(prepared: MakeDaemon) -> None:
    """The monotonic clock begins near zero; a first moment of zero would be a recent one."""
    served = prepared(limits={"rate_per_source": "1/m"})
    offset = f"-{time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 10**9}"
    clocks = ["--monotonic", offset, "--boottime", offset]
    served.command = ["unshare", "--time", *clocks, "--fork", *served.command]
    ran = served.tetrad("start")
    if "unshare:" in ran.err:
        pytest.skip(ran.err)
    assert ran.status == 0, ran.err
    served.adopt(ran.out)
    assert served.connect().quit() == b"quit"
    assert served.connect().is_refused()
    assert served.wait_for("client.refused")["reason"] == "rate"
    assert served.status()["clients"]["now"] == 0


REUSE = """
import os, sys, time
with open("/proc/sys/kernel/ns_last_pid", "wb", buffering=0) as last:
    while True:
        last.write(b"400")
        last.seek(0)
        time.sleep(0.0001)
"""
"""A program that has the next process get the lowest free pid above 400."""


@pytest.fixture
def few_pids(prepared: MakeDaemon) -> Iterator[Daemon]:
    """Return a daemon, the first process of a PID namespace, that gets the same pids always."""
    require("unshare")
    served = prepared()
    command = [*PID_NAMESPACE, "--kill-child", "sh", "-c", '"$0" -c "$1" & shift; exec "$@"']
    arguments = [sys.executable, REUSE, *served.command, "run", "-c", served.file]
    with subprocess.Popen(
        [*command, *arguments],
        env=served.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            served.ports = [served.wait_for("server.listening")["port"]]
            yield served
        finally:
            for master in children_of(running.pid):  # unshare(1) itself waits for it
                os.kill(master, signal.SIGTERM)
            running.wait(TIMEOUT_SECONDS)


@pytest.mark.skipif(UNDER_COVERAGE, reason="coverage slows the end of a handler")
def test_pids_that_are_used_again(few_pids: Daemon) -> None:
    """Each session is counted and logged as its own, whatever pids their handlers have had."""
    sessions = 60
    for _ in range(sessions):
        client = few_pids.connect()
        client.send(b"timequit")
        assert client.read_all().endswith(b"quit")
        client.close()
    few_pids.wait_for("client.disconnected", count=sessions)
    pids = {event["pid"] for event in few_pids.events("client.connected")}
    assert len(pids) < sessions / 2
    assert not few_pids.events("handler.lost")
    until(lambda: not few_pids.status()["clients"]["now"], "the end of all sessions")
