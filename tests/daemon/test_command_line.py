"""The output and the exit status of commands about a daemon, also with output that fails."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemons import ROOT_WARNING
from tests.support.processes import environment, run
from tests.support.system_programs import require

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon

NOBODY: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}


def test_no_command_leaves_a_descriptor_unclosed(prepared: MakeDaemon) -> None:
    """In Python's development mode, no command prints a ResourceWarning or any other one."""
    asked = prepared()
    command = [sys.executable, "-X", "dev", "-W", "default", "-m", "tetrad"]
    elsewhere = ["--root", os.path.join(asked.folder, "root")]
    port = 0
    for arguments in (
        ["check"],
        ["check", "--dump"],
        ["check", "--schema"],
        ["start"],
        ["start"],
        ["client", "time", "quit"],
        ["status"],
        ["status", "--clients"],
        ["explain", "127.0.0.1"],
        ["logs"],
        ["reload"],
        ["upgrade"],
        ["restart"],
        ["stop"],
        ["status"],
        ["install", *elsewhere],
        ["uninstall", *elsewhere],
        ["client", "--host", "unix:/nowhere"],
    ):
        where = ["--port", str(port)] if arguments[0] == "client" else []
        ran = run([*command, *arguments, *where, "-c", asked.file], asked.environment)
        lines = ran.err.replace(ROOT_WARNING, "").splitlines()
        assert [line for line in lines if not line.startswith("tetrad: ")] == [], arguments
        if "tetrad: started" in ran.out:
            asked.adopt(ran.out)
            port = asked.port


@pytest.mark.quick
def test_commands_about_a_daemon_that_does_not_run(prepared: MakeDaemon) -> None:
    """Each has its exit status, and no file is created."""
    asked = prepared()
    ran = {name: asked.tetrad(name) for name in ("stop", "status", "reload", "check")}
    assert {name: one.status for name, one in ran.items()} == {
        "stop": 0,
        "status": 3,
        "reload": 7,
        "check": 0,
    }
    assert ran["stop"].out == ran["status"].out == asked.not_running
    assert set(os.listdir(asked.folder)) == {"home", "tetrad.yaml"}


@pytest.mark.quick
def test_stop_returns_when_the_daemon_has_exited(daemon: MakeDaemon) -> None:
    """After it there is no process and no pidfile, and the log is complete."""
    served = daemon()
    client = served.served()
    ran = served.tetrad("stop")
    assert (ran.status, ran.out) == (0, f"tetrad: stopped (pid {served.pid})\n")
    assert served.master.has_ended(0)
    assert client.read_all() == b""
    assert not os.path.exists(served.pidfile)
    assert served.events()[-1]["event"] == "server.stopped"


def test_stop_works_with_an_invalid_file(daemon: MakeDaemon) -> None:
    """Errors in the file do not prevent a stop."""
    served = daemon()
    served.configure(limits={"clients": "many"})
    assert served.tetrad("stop").status == 0
    assert served.is_gone()


def test_the_status_of_a_daemon_that_runs(shared_daemon: MakeDaemon) -> None:
    """The exit status is 0, and --json has the facts."""
    served = shared_daemon()
    assert served.tetrad("status").out.startswith("tetrad ")
    status = served.status()
    assert (status["state"], status["pid"]) == ("running", served.pid)
    assert status["config"] == served.file


def test_the_status_of_a_stopped_daemon_is_json_too(prepared: MakeDaemon) -> None:
    """--json prints JSON in every state."""
    ran = prepared().tetrad("status", "--json")
    assert (ran.status, json.loads(ran.out)["state"]) == (3, "stopped")


def test_a_daemon_that_does_not_respond_is_unknown(daemon: MakeDaemon) -> None:
    """The exit status is 4, and the message has the pid."""
    served = daemon()
    os.unlink(os.path.join(served.folder, "control.sock"))
    ran = served.tetrad("status")
    assert ran.status == 4
    assert f"pid {served.pid}" in ran.err


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_restart_is_completed_without_output(
    shared_daemon: MakeDaemon, unbuffered: str, stream: str
) -> None:
    """An error of standard output or standard error does not prevent the start."""
    served = shared_daemon()
    variables = {**served.environment, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "tetrad", "restart", "-c", served.file]
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = run(command, variables, **{stream: full})
    before = served.pid
    (listener,) = served.status()["listeners"]
    served.adopt(f"127.0.0.1:{listener['port']} (command)")
    assert served.pid != before
    assert ran.status == (1 if stream == "stdout" else 0)


def test_a_full_standard_error_does_not_change_the_status(prepared: MakeDaemon) -> None:
    """Exit statuses are the same if no message can be written."""
    asked = prepared()
    for command, status in (("reload", 7), ("check", 78)):
        if command == "check":
            asked.configure(limits={"clients": "many"})
        with open("/dev/full", "w", encoding="ascii") as full:
            assert asked.tetrad(command, stderr=full).status == status


def test_the_daemon_of_another_user_needs_permission(
    daemon: MakeDaemon, nobodys_folder: str
) -> None:
    """An ordinary user cannot stop or reload root's daemon, or read its status."""
    served = daemon(folder=nobodys_folder, daemon={"umask": "022"})
    ran = {name: served.tetrad(name, **NOBODY) for name in ("stop", "reload", "status", "restart")}
    assert {name: one.status for name, one in ran.items()} == dict.fromkeys(ran, 4)
    assert served.status()["pid"] == served.pid


def test_a_closed_pipe_is_not_an_error(prepared: MakeDaemon) -> None:
    """`tetrad check --dump | head -1` prints no error."""
    reads, writes = os.pipe()
    os.close(reads)
    ran = prepared().tetrad("check", "--dump", stdout=writes)
    os.close(writes)
    assert ran.err == ""


def test_a_full_standard_output_is_reported(prepared: MakeDaemon) -> None:
    """Output that cannot be written is a failure in one line."""
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = prepared().tetrad("check", stdout=full)
    assert ran.status == 1
    assert "no space left" in ran.err


def test_a_missing_null_device_is_reported_with_the_command_to_create_it(
    tmp_path: pathlib.Path,
) -> None:
    """This is an error of every command, for example in a minimal chroot."""
    apart = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs no /dev && exec "$@"', "sh"]
    require("unshare")
    ran = run([*apart, "true"], environment(str(tmp_path)))
    if ran.status:
        pytest.skip(f"run the tests as root that may mount file systems: {ran.err.strip()}")
    ran = run([*apart, sys.executable, "-m", "tetrad", "status"], environment(str(tmp_path)))
    missing = "tetrad: /dev/null: no such file or directory: mknod -m 666 /dev/null c 1 3\n"
    assert (ran.status, ran.out, ran.err) == (1, "", missing)
