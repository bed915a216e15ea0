"""The command line: what each command prints, and the status it ends with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from clients import ANSWER
from processes import TIMEOUT_SECONDS, assert_no_traceback, environment, run, until

if TYPE_CHECKING:
    import pathlib

    from conftest import MakeDaemon
    from daemons import Daemon
    from processes import Ran

COMMANDS = ["run", "start", "stop", "restart", "reload", "status", "check", "client"]
NOBODY: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}


def tetrad(home: object, *arguments: str, **options: Any) -> Ran:  # noqa: ANN401
    """Run a command without a configuration of its own."""
    return run([sys.executable, "-m", "tetrad", *arguments], environment(str(home)), **options)


@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)])
def test_the_version_is_told_on_every_level(tmp_path: pathlib.Path, before: list[str]) -> None:
    """--version prints name and version, whatever command it stands behind."""
    ran = tetrad(tmp_path, *before, "--version")
    assert (ran.status, ran.err) == (0, "")
    assert re.fullmatch(r"tetrad \d+\.\d+\S*\n", ran.out)


@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)])
def test_help_is_given_on_every_level(tmp_path: pathlib.Path, before: list[str]) -> None:
    """--help explains, whatever command it stands behind."""
    ran = tetrad(tmp_path, *before, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(" ".join(["usage: tetrad", *before]))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("begin",),
        ("start", "now"),
        ("start", "--fast"),
        ("start", "-c"),
        ("start", "-c", ""),
        ("status", "--josn"),
        ("client", "--port", "http"),
        ("client", "--port", "65536"),
        ("client", "--port", "0"),
        ("client", "--service", "chat"),
    ],
)
def test_a_usage_error_is_2(tmp_path: pathlib.Path, arguments: tuple[str, ...]) -> None:
    """What cannot be understood is told with the usage, and status 2."""
    ran = tetrad(tmp_path, *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("usage: tetrad")


def test_commands_about_a_daemon_that_does_not_run(prepared: MakeDaemon) -> None:
    """Stop 0, status 3, reload 7, check 0, and nothing has come into being."""
    asked = prepared()
    ran = {name: asked.tetrad(name) for name in ("stop", "status", "reload", "check")}
    assert {name: one.status for name, one in ran.items()} == {
        "stop": 0,
        "status": 3,
        "reload": 7,
        "check": 0,
    }
    assert ran["stop"].out == ran["status"].out == "tetrad: not running\n"
    assert set(os.listdir(asked.folder)) == {"home", "tetrad.yaml"}


def test_a_stop_returns_when_the_daemon_is_gone(daemon: MakeDaemon) -> None:
    """After the command there is no process, no pidfile, and a complete log."""
    served = daemon()
    client = served.served()
    ran = served.tetrad("stop")
    assert (ran.status, ran.out) == (0, f"tetrad: stopped (pid {served.pid})\n")
    assert served.master.has_ended(0)
    assert client.read_all() == b""
    assert not os.path.exists(served.pidfile)
    assert served.events()[-1]["event"] == "server.stopped"


def test_a_daemon_is_stopped_by_a_file_with_problems(daemon: MakeDaemon) -> None:
    """A bad file is no reason to let a daemon run."""
    served = daemon()
    served.configure(limits={"clients": "many"})
    assert served.tetrad("stop").status == 0
    assert served.is_gone()


def test_the_status_of_a_daemon_that_runs(daemon: MakeDaemon) -> None:
    """Status 0, and with --json what a program wants to know."""
    served = daemon()
    assert served.tetrad("status").out.startswith("tetrad ")
    status = served.status()
    assert (status["state"], status["pid"]) == ("running", served.pid)
    assert status["config"] == served.file


def test_the_status_of_what_does_not_run_is_json_too(prepared: MakeDaemon) -> None:
    """--json answers in JSON whatever the state is."""
    ran = prepared().tetrad("status", "--json")
    assert (ran.status, json.loads(ran.out)["state"]) == (3, "stopped")


def test_a_daemon_that_does_not_answer_is_unknown(daemon: MakeDaemon) -> None:
    """Status 4: it runs, but there is no word from it."""
    served = daemon()
    os.unlink(os.path.join(served.folder, "control.sock"))
    ran = served.tetrad("status")
    assert ran.status == 4
    assert f"pid {served.pid}" in ran.err


def test_a_good_file_is_told_so(prepared: MakeDaemon) -> None:
    """`check` names the file that it has found good."""
    asked = prepared()
    ran = asked.tetrad("check")
    assert (ran.status, ran.out) == (0, f"{asked.file}: configuration OK\n")


def test_a_bad_file_is_told_with_every_place(prepared: MakeDaemon) -> None:
    """One run finds all problems, each as FILE:LINE:COLUMN: key: what, with status 78."""
    asked = prepared()
    with open(asked.file, "w", encoding="ascii") as file:
        file.write('listen:\n  - port: "x"\n    servcie: echo\nlog:\n  level: loud\nnope: 1\n')
    ran = asked.tetrad("check")
    assert (ran.status, ran.out) == (78, "")
    lines = ran.err.removeprefix("tetrad: ").split("\ntetrad: ")
    assert [line.partition(": ")[0].removeprefix(asked.file) for line in lines] == [
        ":2:11",
        ":3:5",
        ":5:10",
        ":6:1",
    ]
    assert "listen[0].port" in lines[0]
    assert "did you mean service?" in lines[1]


def test_the_effective_configuration_loads_back(prepared: MakeDaemon) -> None:
    """`check --dump` prints YAML which, loaded, is dumped as the same."""
    asked = prepared(limits={"rate_per_source": "20/s"}, access={"deny": ["192.0.2.0/24"]})
    first = asked.tetrad("check", "--dump").out
    with open(asked.file, "w", encoding="utf-8") as file:
        file.write(first)
    assert asked.tetrad("check", "--dump").out == first
    assert yaml.safe_load(first)["limits"]["rate_per_source"] == "20/s"


def test_the_file_may_be_named_before_the_command(prepared: MakeDaemon) -> None:
    """-c means the same on both levels."""
    asked = prepared()
    ran = tetrad(asked.folder, "-c", asked.file, "check")
    assert ran.out == f"{asked.file}: configuration OK\n"


def test_the_file_may_be_named_by_the_environment(prepared: MakeDaemon) -> None:
    """$TETRAD_CONFIG is read where -c is not given, and only there."""
    asked, other = prepared(), prepared()
    command = [sys.executable, "-m", "tetrad", "check"]
    variables = {**asked.environment, "TETRAD_CONFIG": asked.file}
    assert run(command, variables).out == f"{asked.file}: configuration OK\n"
    ran = run([*command, "-c", other.file], variables)
    assert ran.out == f"{other.file}: configuration OK\n"


def test_a_relative_name_in_the_environment_is_found_again(prepared: MakeDaemon) -> None:
    """The daemon goes elsewhere, and reads the file again that it was started with."""
    asked = prepared()
    variables = {**asked.environment, "TETRAD_CONFIG": "tetrad.yaml"}
    ran = run([sys.executable, "-m", "tetrad", "start"], variables, cwd=asked.folder)
    asked.adopt(ran.out)
    assert asked.status()["config"] == asked.file
    assert asked.tetrad("reload").status == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_an_error_in_a_line(
    tmp_path: pathlib.Path, arguments: list[str], unbuffered: str
) -> None:
    """Whether Python writes at once or in the end, it has nothing to add."""
    variables = {**environment(str(tmp_path)), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = run([sys.executable, "-m", "tetrad", *arguments], variables, stdout=full)
    assert ran.status == 1
    assert re.fullmatch(r"tetrad: .*: no space left on device\n", ran.err)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_restart_is_done_whoever_listens(
    daemon: MakeDaemon, unbuffered: str, stream: str
) -> None:
    """That nobody can be told that it has stopped is no reason not to start."""
    served = daemon()
    variables = {**served.environment, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "tetrad", "restart", "-c", served.file]
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = run(command, variables, **{stream: full})
    served.adopt(f"(pid {served.status()['pid']}) 127.0.0.1:0 (command)")
    assert ran.status == (1 if stream == "stdout" else 0)


def test_a_status_that_nobody_can_hear_of_is_what_it_is(prepared: MakeDaemon) -> None:
    """Standard error that is full changes no exit status."""
    asked = prepared()
    for command, status in (("reload", 7), ("check", 78)):
        if command == "check":
            asked.configure(limits={"clients": "many"})
        with open("/dev/full", "w", encoding="ascii") as full:
            assert asked.tetrad(command, stderr=full).status == status


def test_a_relative_name_is_found_from_here(prepared: MakeDaemon) -> None:
    """-c may be relative; the daemon finds its file again, wherever it stays."""
    asked = prepared()
    ran = tetrad(asked.folder, "start", "-c", "tetrad.yaml", cwd=asked.folder)
    asked.adopt(ran.out)
    assert asked.status()["config"] == asked.file
    assert asked.tetrad("reload").status == 0


@pytest.mark.parametrize(
    "command", ["run", "start", "stop", "restart", "reload", "status", "check"]
)
def test_a_file_that_does_not_exist_is_78(tmp_path: pathlib.Path, command: str) -> None:
    """A file that was named has to be there."""
    ran = tetrad(tmp_path, command, "-c", "/no/such/file.yaml")
    assert (ran.status, ran.out) == (78, "")
    assert ran.err == "tetrad: /no/such/file.yaml: no such file or directory\n"


def test_a_file_that_may_not_be_read_is_4(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """Want of permission is status 4, and names the file."""
    asked = prepared(folder=nobodys_folder)
    os.chmod(asked.file, 0)
    ran = asked.tetrad("start", **NOBODY)
    assert (ran.status, ran.err) == (4, f"tetrad: {asked.file}: permission denied\n")


def test_somebody_elses_daemon_is_a_matter_of_permission(
    daemon: MakeDaemon, nobodys_folder: str
) -> None:
    """An ordinary user can neither stop nor reload root's daemon, nor look into it."""
    served = daemon(folder=nobodys_folder, daemon={"umask": "022"})
    ran = {name: served.tetrad(name, **NOBODY) for name in ("stop", "reload", "status", "restart")}
    assert {name: one.status for name, one in ran.items()} == dict.fromkeys(ran, 4)
    assert served.status()["pid"] == served.pid


def test_a_reader_that_leaves_early_is_nothing(prepared: MakeDaemon) -> None:
    """`tetrad check --dump | head -1` prints no complaint."""
    reads, writes = os.pipe()
    os.close(reads)
    ran = prepared().tetrad("check", "--dump", stdout=writes)
    os.close(writes)
    assert ran.err == ""


def test_a_full_standard_output_is_told(prepared: MakeDaemon) -> None:
    """What could not be printed is a failure in one line."""
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = prepared().tetrad("check", stdout=full)
    assert ran.status == 1
    assert "no space left" in ran.err


class Foreground:
    """A `tetrad run`, as from a terminal."""

    def __init__(self, daemon: Daemon) -> None:
        self._output = os.path.join(daemon.folder, "output")
        self.process = daemon.run(self._output)
        until(lambda: "Ctrl-C" in self.text() or self.process.poll() is not None, "its first lines")
        until(lambda: os.path.getsize(daemon.pidfile), "its pid")
        daemon.ports = [int(port) for port in re.findall(r" at [\d.]+:(\d+);", self.text())]

    def text(self) -> str:
        """Return what was printed."""
        with open(self._output, encoding="utf-8") as file:
            return file.read()

    def interrupt(self) -> int:
        """Do what Ctrl-C does to everything in the foreground; return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        status = self.process.wait(TIMEOUT_SECONDS)
        assert_no_traceback(self.text())
        return status


def in_foreground(
    prepared: MakeDaemon, log: dict[str, str | None] | None = None
) -> tuple[Daemon, Foreground]:
    """Serve in the foreground; without a log section, the file names no log."""
    asked = prepared(log={} if log is None else log)
    if log is None:
        asked.settings["log"] = {}
        asked.configure()
    return asked, Foreground(asked)


def test_serving_in_the_foreground_is_readable(prepared: MakeDaemon) -> None:
    """`tetrad run` says where it serves and how to talk to it; its log is for people."""
    served, foreground = in_foreground(prepared)
    assert f"nc 127.0.0.1 {served.port}" in foreground.text()
    assert foreground.process.pid == served.pid
    assert ANSWER.fullmatch(served.connect().ask())
    until(lambda: "client.command" in foreground.text(), "the log")
    assert not any(line.startswith("{") for line in foreground.text().splitlines())
    assert foreground.interrupt() == 0
    assert "server.stopped" in foreground.text()


def test_an_interrupt_finishes_what_has_begun(prepared: MakeDaemon) -> None:
    """Ctrl-C is for the master: handlers and logger, which hear it too, finish their work."""
    served, foreground = in_foreground(prepared)
    client = served.connect()
    client.send_and_wait(b"ti")
    os.killpg(foreground.process.pid, signal.SIGINT)
    until(lambda: "server.stopping" in foreground.text(), "the stop")
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert foreground.process.wait(TIMEOUT_SECONDS) == 0


def test_a_log_file_that_is_named_is_written_in_the_foreground(prepared: MakeDaemon) -> None:
    """With `log.file` given on purpose the terminal shows no log."""
    served, foreground = in_foreground(prepared, log={"file": "tetrad.log"})
    served.wait_for("server.started")
    assert foreground.interrupt() == 0
    assert "server.started" not in foreground.text()
    assert served.events()[-1]["event"] == "server.stopped"


def test_the_foreground_keeps_the_format_that_is_named(prepared: MakeDaemon) -> None:
    """With `log.file: null` and a format, standard error has that format."""
    _, foreground = in_foreground(prepared, log={"file": None, "format": "json"})
    until(lambda: '"event":"server.started"' in foreground.text(), "JSON")
    assert foreground.interrupt() == 0


def test_the_foreground_does_not_start_a_second_one(daemon: MakeDaemon) -> None:
    """What runs already is told, and is a failure: this terminal serves nobody."""
    served = daemon()
    ran = served.tetrad("run")
    assert ran.status != 0
    assert f"already running (pid {served.pid})" in ran.err


def test_stop_ends_the_foreground_too(prepared: MakeDaemon) -> None:
    """A daemon in the foreground has a pidfile and a control socket like any other."""
    served, foreground = in_foreground(prepared)
    assert served.status()["state"] == "running"
    assert served.tetrad("stop").status == 0
    assert foreground.process.wait(TIMEOUT_SECONDS) == 0


ALL_COMMANDS = """
for command in check status stop reload start start status reload restart stop status
do "$0" -m tetrad "$command" 2>&1; echo "$? $command"; done
"""

STATUSES = [
    "0 check",
    "3 status",
    "0 stop",
    "7 reload",
    "0 start",
    "0 start",
    "0 status",
    "0 reload",
    "0 restart",
    "0 stop",
    "3 status",
]

APART = "ip link set lo up && mount -t tmpfs no /run && mount -t tmpfs no /var/log && exec"
BECOME_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def run_apart(home: str, become: list[str]) -> list[str]:
    """Run all commands without a configuration, where no port and no file is anybody's."""
    if os.path.exists("/etc/tetrad/tetrad.yaml"):
        pytest.skip("this machine has a configuration: /etc/tetrad/tetrad.yaml")
    apart = ["unshare", "--net", "--mount", "/bin/sh", "-c", f'{APART} "$@"', "sh"]
    if shutil.which("unshare") is None or run([*apart, "true"], environment(home)).status:
        pytest.skip("only root with util-linux and iproute2 can have a network apart")
    return run_all([*apart, *become], home)


def run_all(prefix: list[str], home: str) -> list[str]:
    """Run all commands, and return their statuses."""
    command = [*prefix, "/bin/sh", "-c", ALL_COMMANDS, sys.executable]
    ran = run(command, environment(home), cwd="/")
    assert_no_traceback(ran.out)
    assert ran.err == ""
    return re.findall(r"^\d+ \w+$", ran.out, re.MULTILINE)


def test_root_needs_no_configuration(tmp_path: pathlib.Path) -> None:
    """The built-in defaults serve root at once, in the system's folders."""
    assert run_apart(str(tmp_path), []) == STATUSES


def test_a_system_without_the_null_device_is_told_how_to_get_one(tmp_path: pathlib.Path) -> None:
    """In a bare chroot or container, whatever the command."""
    apart = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs no /dev && exec "$@"', "sh"]
    if shutil.which("unshare") is None or run([*apart, "true"], environment(str(tmp_path))).status:
        pytest.skip("only root with util-linux can be without /dev/null")
    ran = run([*apart, sys.executable, "-m", "tetrad", "status"], environment(str(tmp_path)))
    missing = "tetrad: /dev/null: no such file or directory: mknod -m 666 /dev/null c 1 3\n"
    assert (ran.status, ran.out, ran.err) == (1, "", missing)


class Ordinary(NamedTuple):
    """A user other than root: the home, and what makes root that user."""

    home: str
    become: list[str]


@pytest.fixture
def ordinary(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Ordinary:
    """Return whoever runs the tests, or nobody if that is root."""
    if os.geteuid():
        return Ordinary(str(tmp_path), [])
    return Ordinary(request.getfixturevalue("nobodys_folder"), BECOME_NOBODY)


def test_an_ordinary_user_needs_no_configuration(ordinary: Ordinary) -> None:
    """The built-in defaults serve everybody at once, in the folders of their own."""
    if ordinary.become:
        statuses = run_apart(*ordinary)
    else:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 65000)) == 0:
                pytest.skip("port 65000 is taken on this machine")
        statuses = run_all([], ordinary.home)
    assert statuses == STATUSES
    assert os.listdir(ordinary.home) == [".local"]
    state = os.path.join(ordinary.home, ".local", "state", "tetrad")
    assert set(os.listdir(state)) == {"run", "tetrad.log"}


def test_the_folders_of_the_session_are_used(ordinary: Ordinary) -> None:
    """With XDG's variables set, an ordinary user's files lie where these say."""
    variables = environment(ordinary.home) | {
        "XDG_RUNTIME_DIR": "/run/me",
        "XDG_STATE_HOME": "/state/me",
    }
    command = [*ordinary.become, sys.executable, "-m", "tetrad", "check", "--dump"]
    dumped = yaml.safe_load(run(command, variables, cwd="/").out)
    assert dumped["daemon"]["pidfile"] == "/run/me/tetrad/tetrad.pid"
    assert dumped["log"]["file"] == "/state/me/tetrad/tetrad.log"
