"""The command line: the output and the exit status of each command."""

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

from tests.support.clients import ANSWER
from tests.support.daemons import ROOT_WARNING
from tests.support.processes import TIMEOUT_SECONDS, assert_no_traceback, environment, run, until
from tetrad import cli
from tetrad.cli.parser import parser

if TYPE_CHECKING:
    import pathlib

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Ran

COMMANDS = [
    "run",
    "start",
    "stop",
    "restart",
    "reload",
    "upgrade",
    "status",
    "logs",
    "explain",
    "check",
    "client",
    "install",
    "uninstall",
]
NOBODY: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}


def tetrad(home: object, *arguments: str, **options: Any) -> Ran:  # noqa: ANN401
    """Run a command without a configuration of its own."""
    return run([sys.executable, "-m", "tetrad", *arguments], environment(str(home)), **options)


@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)])
def test_version_works_on_every_level(tmp_path: pathlib.Path, before: list[str]) -> None:
    """--version prints the name and the version, also after a command."""
    ran = tetrad(tmp_path, *before, "--version")
    assert (ran.status, ran.err) == (0, "")
    assert re.fullmatch(r"tetrad \d+\.\d+\S*\n", ran.out)


@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)])
def test_help_works_on_every_level(tmp_path: pathlib.Path, before: list[str]) -> None:
    """--help prints the usage, also after a command."""
    ran = tetrad(tmp_path, *before, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(" ".join(["usage: tetrad", *before]))


@pytest.mark.parametrize("option", ["--version", "--help"])
@pytest.mark.parametrize("before", [[], *([command] for command in COMMANDS)])
def test_help_and_version_import_no_libraries(
    tmp_path: pathlib.Path, before: list[str], option: str
) -> None:
    """Importing yaml and msgspec takes several times as long as the rest."""
    code = (
        "import atexit, sys; sys.argv[0] = 'tetrad'; from tetrad.cli import main;"
        "atexit.register(lambda: print(*sys.modules, sep='\\n', file=sys.stderr)); main()"
    )
    ran = run([sys.executable, "-c", code, *before, option], environment(str(tmp_path)))
    modules = set(ran.err.split())
    assert ran.status == 0
    assert "tetrad.cli.parser" in modules
    assert not {"daemon", "msgspec", "ssl", "yaml"} & modules


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


def test_every_command_has_a_function() -> None:
    """The parser and the table of functions have the same commands."""
    (commands,) = (one.choices for one in parser()._actions if one.choices)  # noqa: SLF001
    assert list(commands) == COMMANDS
    assert [cli._function(name).__name__ for name in commands] == COMMANDS  # noqa: SLF001


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
    """The usage is printed, and the exit status is 2."""
    ran = tetrad(tmp_path, *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("usage: tetrad")


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


def test_the_status_of_a_daemon_that_runs(daemon: MakeDaemon) -> None:
    """The exit status is 0, and --json has the facts."""
    served = daemon()
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


def test_a_valid_file_is_reported(prepared: MakeDaemon) -> None:
    """`check` prints the name of the file."""
    asked = prepared()
    ran = asked.tetrad("check")
    assert (ran.status, ran.out) == (0, f"{asked.file}: configuration OK\n")


def test_an_invalid_file_is_reported_with_every_location(prepared: MakeDaemon) -> None:
    """One run reports all errors as FILE:LINE:COLUMN: key: reason, with exit status 78."""
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
    """`check --dump` prints YAML whose own dump is the same."""
    asked = prepared(limits={"rate_per_source": "20/s"}, access={"deny": ["192.0.2.0/24"]})
    first = asked.tetrad("check", "--dump").out
    with open(asked.file, "w", encoding="utf-8") as file:
        file.write(first)
    assert asked.tetrad("check", "--dump").out == first
    assert yaml.safe_load(first)["limits"]["rate_per_source"] == "20/s"


def test_the_file_may_be_named_before_the_command(prepared: MakeDaemon) -> None:
    """-c has the same meaning before and after the command."""
    asked = prepared()
    ran = tetrad(asked.folder, "-c", asked.file, "check")
    assert ran.out == f"{asked.file}: configuration OK\n"


def test_the_file_may_be_named_by_the_environment(prepared: MakeDaemon) -> None:
    """$TETRAD_CONFIG is used only without -c."""
    asked, other = prepared(), prepared()
    command = [sys.executable, "-m", "tetrad", "check"]
    variables = {**asked.environment, "TETRAD_CONFIG": asked.file}
    assert run(command, variables).out == f"{asked.file}: configuration OK\n"
    ran = run([*command, "-c", other.file], variables)
    assert ran.out == f"{other.file}: configuration OK\n"


def test_a_relative_path_in_the_environment_is_found_by_a_reload(prepared: MakeDaemon) -> None:
    """The daemon has another working directory, and reads the same file again."""
    asked = prepared()
    variables = {**asked.environment, "TETRAD_CONFIG": "tetrad.yaml"}
    ran = run([sys.executable, "-m", "tetrad", "start"], variables, cwd=asked.folder)
    asked.adopt(ran.out)
    assert asked.status()["config"] == asked.file
    assert asked.tetrad("reload").status == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_an_error_in_one_line(
    tmp_path: pathlib.Path, arguments: list[str], unbuffered: str
) -> None:
    """Python prints nothing more, whether its output is buffered or not."""
    variables = {**environment(str(tmp_path)), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = run([sys.executable, "-m", "tetrad", *arguments], variables, stdout=full)
    assert ran.status == 1
    assert re.fullmatch(r"tetrad: .*: no space left on device\n", ran.err)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_restart_is_completed_without_output(
    daemon: MakeDaemon, unbuffered: str, stream: str
) -> None:
    """An error of standard output or standard error does not prevent the start."""
    served = daemon()
    variables = {**served.environment, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "tetrad", "restart", "-c", served.file]
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = run(command, variables, **{stream: full})
    served.adopt(f"(pid {served.status()['pid']}) 127.0.0.1:0 (command)")
    assert ran.status == (1 if stream == "stdout" else 0)


def test_a_full_standard_error_does_not_change_the_status(prepared: MakeDaemon) -> None:
    """Exit statuses are the same if no message can be written."""
    asked = prepared()
    for command, status in (("reload", 7), ("check", 78)):
        if command == "check":
            asked.configure(limits={"clients": "many"})
        with open("/dev/full", "w", encoding="ascii") as full:
            assert asked.tetrad(command, stderr=full).status == status


def test_a_relative_path_is_found_by_a_reload(prepared: MakeDaemon) -> None:
    """-c may be relative to the working directory of the command."""
    asked = prepared()
    ran = tetrad(asked.folder, "start", "-c", "tetrad.yaml", cwd=asked.folder)
    asked.adopt(ran.out)
    assert asked.status()["config"] == asked.file
    assert asked.tetrad("reload").status == 0


@pytest.mark.parametrize(
    "command", ["run", "start", "stop", "restart", "reload", "status", "check"]
)
def test_a_file_that_does_not_exist_is_78(tmp_path: pathlib.Path, command: str) -> None:
    """The file of -c must exist."""
    ran = tetrad(tmp_path, command, "-c", "/no/such/file.yaml")
    assert (ran.status, ran.out) == (78, "")
    assert ran.err == "tetrad: /no/such/file.yaml: no such file or directory\n"


def test_a_file_without_read_permission_is_4(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """The message names the file."""
    asked = prepared(folder=nobodys_folder)
    os.chmod(asked.file, 0)
    ran = asked.tetrad("start", **NOBODY)
    message = f"tetrad: {asked.file}: permission denied; user nobody needs read access\n"
    assert (ran.status, ran.err) == (4, message)


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


class Foreground:
    """A `tetrad run` in a process group of its own, as from a terminal."""

    def __init__(self, daemon: Daemon) -> None:
        self._output = os.path.join(daemon.folder, "output")
        self.process = daemon.run(self._output)
        until(lambda: "Ctrl-C" in self.text() or self.process.poll() is not None, "its first lines")
        until(lambda: os.path.getsize(daemon.pidfile), "its pid")
        daemon.ports = [int(port) for port in re.findall(r" at [\d.]+:(\d+);", self.text())]

    def text(self) -> str:
        """Return the output."""
        with open(self._output, encoding="utf-8") as file:
            return file.read()

    def interrupt(self) -> int:
        """Send SIGINT to the process group, as Ctrl-C does; return the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        status = self.process.wait(TIMEOUT_SECONDS)
        assert_no_traceback(self.text())
        return status


def in_foreground(
    prepared: MakeDaemon, log: dict[str, str | None] | None = None
) -> tuple[Daemon, Foreground]:
    """Serve in the foreground, with the section `log` of the configuration."""
    asked = prepared(log={} if log is None else log)
    if log is None:
        asked.settings["log"] = {}
        asked.configure()
    return asked, Foreground(asked)


def test_serving_in_the_foreground_is_readable(prepared: MakeDaemon) -> None:
    """`tetrad run` prints its listeners with a command to try them; its log is readable."""
    served, foreground = in_foreground(prepared)
    assert f"nc 127.0.0.1 {served.port}" in foreground.text()
    assert foreground.process.pid == served.pid
    assert ANSWER.fullmatch(served.connect().ask())
    until(lambda: "client.command" in foreground.text(), "the log")
    assert not any(line.startswith("{") for line in foreground.text().splitlines())
    assert foreground.interrupt() == 0
    assert "server.stopped" in foreground.text()


def test_an_interrupt_completes_a_started_command(prepared: MakeDaemon) -> None:
    """Handlers and logger, which receive SIGINT too, finish their work."""
    served, foreground = in_foreground(prepared)
    client = served.connect()
    client.send_and_wait(b"ti")
    os.killpg(foreground.process.pid, signal.SIGINT)
    until(lambda: "server.stopping" in foreground.text(), "the stop")
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert foreground.process.wait(TIMEOUT_SECONDS) == 0


def test_a_log_file_that_is_set_is_written_in_the_foreground(prepared: MakeDaemon) -> None:
    """With `log.file` the log is not on the terminal."""
    served, foreground = in_foreground(prepared, log={"file": "tetrad.log"})
    served.wait_for("server.started")
    assert foreground.interrupt() == 0
    assert "server.started" not in foreground.text()
    assert served.events()[-1]["event"] == "server.stopped"


def test_the_foreground_keeps_the_format_that_is_set(prepared: MakeDaemon) -> None:
    """With `log.file: null` and a format, standard error has that format."""
    _, foreground = in_foreground(prepared, log={"file": None, "format": "json"})
    until(lambda: '"event":"server.started"' in foreground.text(), "JSON")
    assert foreground.interrupt() == 0


def test_the_foreground_does_not_start_a_second_one(daemon: MakeDaemon) -> None:
    """`tetrad run` fails if the daemon already runs, unlike `tetrad start`."""
    served = daemon()
    ran = served.tetrad("run")
    assert ran.status != 0
    assert f"already running (pid {served.pid})" in ran.err


def test_stop_works_for_the_foreground(prepared: MakeDaemon) -> None:
    """A daemon in the foreground has a pidfile and a control socket too."""
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
    """Run all commands without a configuration, in a network and folders of their own."""
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
    """With the built-in defaults root can start a daemon, in the system's folders."""
    assert run_apart(str(tmp_path), []) == STATUSES


def test_a_missing_null_device_is_reported_with_the_command_to_create_it(
    tmp_path: pathlib.Path,
) -> None:
    """This is an error of every command, for example in a minimal chroot."""
    apart = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs no /dev && exec "$@"', "sh"]
    if shutil.which("unshare") is None or run([*apart, "true"], environment(str(tmp_path))).status:
        pytest.skip("only root with util-linux can be without /dev/null")
    ran = run([*apart, sys.executable, "-m", "tetrad", "status"], environment(str(tmp_path)))
    missing = "tetrad: /dev/null: no such file or directory: mknod -m 666 /dev/null c 1 3\n"
    assert (ran.status, ran.out, ran.err) == (1, "", missing)


class Ordinary(NamedTuple):
    """A user other than root: the home, and the command by which root becomes that user."""

    home: str
    become: list[str]


@pytest.fixture
def ordinary(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Ordinary:
    """Return the user that runs the tests, or nobody if that is root."""
    if os.geteuid():
        return Ordinary(str(tmp_path), [])
    return Ordinary(request.getfixturevalue("nobodys_folder"), BECOME_NOBODY)


def test_an_ordinary_user_needs_no_configuration(ordinary: Ordinary) -> None:
    """With the built-in defaults every user can start a daemon, in the user's own folders."""
    if ordinary.become:
        statuses = run_apart(*ordinary)
    else:
        with socket.socket() as peer:
            if peer.connect_ex(("127.0.0.1", 65000)) == 0:
                pytest.skip("port 65000 is taken on this machine")
        statuses = run_all([], ordinary.home)
    assert statuses == STATUSES
    assert os.listdir(ordinary.home) == [".local"]
    state = os.path.join(ordinary.home, ".local", "state", "tetrad")
    assert set(os.listdir(state)) == {"run", "tetrad.log"}


def test_the_xdg_folders_are_used(ordinary: Ordinary) -> None:
    """The XDG variables set the folders of an ordinary user's files."""
    variables = environment(ordinary.home) | {
        "XDG_RUNTIME_DIR": "/run/me",
        "XDG_STATE_HOME": "/state/me",
    }
    command = [*ordinary.become, sys.executable, "-m", "tetrad", "check", "--dump"]
    dumped = yaml.safe_load(run(command, variables, cwd="/").out)
    assert dumped["daemon"]["pidfile"] == "/run/me/tetrad/tetrad.pid"
    assert dumped["log"]["file"] == "/state/me/tetrad/tetrad.log"
