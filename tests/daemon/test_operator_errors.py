"""Operator errors: invalid files, commands at the wrong time, and missing permissions."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.commands import run_here
from tests.support.processes import children_of, environment, run, until
from tests.support.readable_python import nobody_can_run_python
from tetrad.launch import pidfile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Ran

BECOME_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
BECOME_NAMELESS = ["setpriv", "--reuid=54321", "--regid=nogroup", "--clear-groups"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

UNCLEAR = "cannot determine the pidfile and control socket from this file"


class OrdinaryUser:
    """A user other than root, whose daemon has the default paths."""

    def __init__(self, folder: str) -> None:
        self.home = os.path.join(folder, "home")
        os.mkdir(self.home)
        os.chmod(self.home, 0o777)  # noqa: S103 - for the other user
        self.file = os.path.join(self.home, "tetrad.yaml")
        self.write("listen: [{port: 0}]\n")

    def write(self, text: str, name: str = "tetrad.yaml") -> str:
        """Write a configuration, and return its path."""
        path = os.path.join(self.home, name)
        pathlib.Path(path).write_text(text, "utf-8")
        return path

    def tetrad(self, *arguments: str, become: list[str] = BECOME_NOBODY) -> Ran:
        """Run a tetrad command as this user."""
        command = [*become, sys.executable, "-m", "tetrad", *arguments]
        return run(command, environment(self.home), cwd="/")

    def master(self) -> int:
        """Return the pid of the daemon that holds the lock of the default pidfile."""
        (path,) = pathlib.Path(self.home).rglob("tetrad.pid")
        pid = pidfile.read_state(str(path)).pid
        assert pid is not None
        return pid


@pytest.fixture(scope="module")
def running_user(public_folder: str) -> Iterator[OrdinaryUser]:
    """Return a user with a running daemon, whose file tests of this module change."""
    if os.geteuid() or not nobody_can_run_python():
        pytest.skip("needs root, and a Python that the user nobody can execute")
    folder = tempfile.mkdtemp(dir=public_folder)
    os.chmod(folder, 0o755)  # noqa: S103 - all users may read it
    user = OrdinaryUser(folder)
    started = user.tetrad("start", "-c", user.file)
    assert started.status == 0, started.err
    yield user
    user.write("listen: [{port: 0}]\n")
    assert user.tetrad("stop", "-c", user.file).out.startswith("tetrad: stopped")


@pytest.fixture
def user(nobodys_folder: str) -> OrdinaryUser:
    """Return a user without a running daemon."""
    return OrdinaryUser(nobodys_folder)


def stop_during_a_command(daemon: Daemon) -> None:
    """Stop the daemon with a session inside an incomplete command, so that the stop takes time."""
    client = daemon.connect()
    client.send_and_wait(b"ti")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("server.stopping")


# Invalid configuration files


def test_status_logs_and_stop_work_with_an_invalid_file(daemon: MakeDaemon) -> None:
    """Errors in other keys do not matter if the paths of the daemon are valid."""
    served = daemon()
    served.wait_for("server.started")
    served.configure(listen=[{"port": served.port}] * 2)
    assert served.tetrad("check").status == 78
    assert served.tetrad("status").status == 0
    assert "server.started" in served.tetrad("logs").out
    assert served.tetrad("stop").out == f"tetrad: stopped (pid {served.pid})\n"
    assert served.is_gone()


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("daemon: {pidfile: tetrad.pid", {"stop": 78, "logs": 78, "status": 4}),
        ("daemon: {pidfil: tetrad.pid}", {"stop": 78, "status": 4}),
        ("logs: {file: tetrad.log}", {"logs": 78}),
    ],
)
def test_a_file_that_does_not_identify_a_daemon_stops_none(
    shared_daemon: MakeDaemon, text: str, commands: dict[str, int]
) -> None:
    """The commands do not fall back to the default paths."""
    served = shared_daemon()
    pathlib.Path(served.file).write_text(text, "utf-8")
    outcomes = {
        command: (status, run_here(served, command)) for command, status in commands.items()
    }
    served.configure()
    for command, (status, ran) in outcomes.items():
        assert (ran.status, ran.out) == (status, ""), command
        assert re.search(rf"{served.file}:\d:\d+: ", ran.err), command
        assert ran.err.endswith(f"{served.file}: {UNCLEAR}\n"), command
    assert ANSWER.fullmatch(served.connect().ask())


@needs_root
def test_an_invalid_file_identifies_the_daemon_that_was_started_with_it(user: OrdinaryUser) -> None:
    """A daemon with the default paths reports its file; another invalid file does not match."""
    started = user.tetrad("start", "-c", user.file)
    assert started.status == 0, started.err
    try:
        user.write("listen: [{port: 0}")
        assert user.tetrad("status", "-c", user.file).status == 0
        assert "server.started" in user.tetrad("logs", "-c", user.file).out
        other = user.write("listen: [{port: 0}", "other.yaml")
        ran = user.tetrad("stop", "-c", other)
        assert (ran.status, UNCLEAR in ran.err) == (78, True)
        assert user.tetrad("status").status == 0
    finally:
        stopped = user.tetrad("stop", "-c", user.file)
    assert stopped.out.startswith("tetrad: stopped (pid "), stopped


@needs_root
def test_the_control_socket_decides_about_a_faulty_pidfile(user: OrdinaryUser) -> None:
    """The file names the pidfile of another daemon by mistake, but its own control socket."""
    other = "daemon: {{{}: b.pid, control: b.sock}}\nlog: {{file: b.log}}\nlisten: [{{port: 0}}]\n"
    file = user.write(other.format("pidfile"), "b.yaml")
    for one in (user.file, file):
        assert user.tetrad("start", "-c", one).status == 0
    user.write(other.format("pidfil"), "b.yaml")
    ran = user.tetrad("stop", "-c", file)
    user.write(other.format("pidfile"), "b.yaml")
    ended = [user.tetrad("stop", "-c", one).out for one in (file, user.file)]
    assert (ran.status, ran.out.startswith("tetrad: stopped")) == (0, True)
    assert ended[0].startswith("tetrad: not running")
    assert ended[1].startswith("tetrad: stopped")


@pytest.mark.parametrize("name", ["tetrad.pid", "control.sock", "tetrad.log"])
def test_a_listener_at_a_path_of_the_daemon_is_reported(daemon: MakeDaemon, name: str) -> None:
    """The commands work, or report that the file does not identify a daemon."""
    served = daemon()
    served.configure(listen=[{"port": 0}, {"address": f"unix:{name}"}])
    for command in ("status", "logs", "stop"):
        ran = served.tetrad(command)
        assert ran.status == 0 or f"{served.file}: {UNCLEAR}" in ran.err, ran
    served.configure(listen=[{"port": 0}])
    assert served.tetrad("stop").status == 0


# A stopping daemon


def test_a_start_waits_for_a_stopping_daemon(daemon: MakeDaemon) -> None:
    """After the old daemon has exited, the start succeeds with a new one."""
    served = daemon(daemon={"stop_timeout": "300ms"})
    served.allow_lost_handlers = True
    before = served.pid
    stop_during_a_command(served)
    ran = served.tetrad("start")
    assert ran.out.startswith("tetrad: started (pid "), ran
    served.adopt(ran.out)
    assert served.pid != before
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_start_waits_for_a_daemon_that_has_closed_its_control_socket(daemon: MakeDaemon) -> None:
    """At the end of a stop the process exists for a moment without one, and is not running."""
    served = daemon(daemon={"stop_timeout": "800ms"})
    served.allow_lost_handlers = True
    stop_during_a_command(served)
    os.unlink(os.path.join(served.folder, "control.sock"))
    ran = served.tetrad("start")
    assert ran.out.startswith("tetrad: started (pid "), ran
    served.adopt(ran.out)


def test_a_reload_of_a_stopping_daemon_is_exit_status_1(daemon: MakeDaemon) -> None:
    """Exit status 78 is for invalid files."""
    served = daemon(daemon={"stop_timeout": "1h"})
    stop_during_a_command(served)
    ran = served.tetrad("reload")
    assert (ran.status, ran.err) == (1, "tetrad: not reloaded; the daemon is stopping\n")
    served.signal(signal.SIGQUIT)
    assert served.is_gone()


# Missing permissions


@needs_root
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "daemon: {user: root}",
            "daemon.user needs root; under systemd set User= in the unit instead",
        ),
        ("daemon: {group: root}", "daemon.group needs root; under systemd set Group= in the unit"),
        ("daemon: {working_directory: /root}", "daemon.working_directory: /root: permission"),
        ("daemon: {pidfile: /root/x.pid}", "daemon.pidfile: /root/x.pid: permission denied"),
        (
            "daemon: {control: /etc/x.sock}",
            "daemon.control: /etc/x.sock: permission denied; user nobody needs write access to ",
        ),
        ("log: {file: /etc/passwd}", "log.file: /etc/passwd: permission denied"),
        (
            "log: {file: /etc/x.log}",
            "log.file: /etc/x.log: permission denied; user nobody needs write access to ",
        ),
    ],
)
def test_a_restart_without_permission_stops_nothing(
    running_user: OrdinaryUser, user: OrdinaryUser, text: str, words: str
) -> None:
    """A start fails with the same message and status."""
    master = running_user.master()
    running_user.write(f"listen: [{{port: 0}}]\n{text}\n")
    ran = running_user.tetrad("restart", "-c", running_user.file)
    assert (ran.status, ran.out) == (4, "")
    reason = "not stopped, because the daemon could not start again; "
    assert ran.err.startswith(f"tetrad: {reason}{words}")
    assert running_user.master() == master
    user.write(f"listen: [{{port: 0}}]\n{text}\n")
    started = user.tetrad("start", "-c", user.file)
    assert (started.status, started.err) == (4, ran.err.replace(reason, ""))


@needs_root
def test_a_user_without_a_name_can_run_a_daemon(user: OrdinaryUser) -> None:
    """As in a container. `daemon.group` needs no root if the process already has the group."""
    user.write("listen: [{port: 0}]\ndaemon: {group: nogroup}\n")
    try:
        ran = user.tetrad("start", "-c", user.file, become=BECOME_NAMELESS)
        assert (ran.status, ran.err) == (0, "")
        os.chmod(user.file, 0)
        ran = user.tetrad("reload", become=BECOME_NAMELESS)
        assert f"{user.file}: permission denied; user 54321 needs read access" in ran.err
    finally:
        assert user.tetrad("stop", become=BECOME_NAMELESS).status == 0


@needs_root
def test_a_unix_socket_without_permission_names_its_directory(user: OrdinaryUser) -> None:
    """The message does not have the hint for ports below 1024."""
    user.write("listen: [{address: 'unix:/etc/tetrad-x.sock'}]\n")
    ran = user.tetrad("start", "-c", user.file)
    expected = "permission denied; user nobody needs write access to directory /etc"
    assert (ran.status, ran.err) == (4, f"tetrad: unix:/etc/tetrad-x.sock: {expected}\n")


# Ports in use


def test_a_conflict_with_a_listener_of_the_same_daemon_is_reported(daemon: MakeDaemon) -> None:
    """A reload names the listener that already has the port, and keeps it."""
    served = daemon()
    other = {"address": "0.0.0.0", "port": served.port}  # noqa: S104 - a test
    served.configure(listen=[{"port": 0}, other])
    ran = served.tetrad("reload")
    assert ran.status == 78
    address = f"127.0.0.1:{served.port}"
    assert f"in use: this daemon listens on {address}; use tetrad restart" in ran.err
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_change_in_a_long_list_is_abbreviated(daemon: MakeDaemon) -> None:
    """One more network in a list of thousands is reported in less than 1000 characters."""
    networks = [f"10.{n // 256}.{n % 256}.0/24" for n in range(2000)]
    served = daemon(access={"deny": networks})
    served.configure(access={"deny": [*networks, "192.0.2.0/24"]})
    ran = served.tetrad("reload")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("tetrad: reloaded; changed:\n  access.deny: ")
    assert len(ran.out) < 1000


def test_an_answer_larger_than_a_socket_buffer_is_complete(daemon: MakeDaemon) -> None:
    """For example the answer to a reload with 3000 new commands."""
    served = daemon()
    with socket.socket(socket.AF_UNIX) as any_socket:
        room = any_socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    names = [f"{n:04d}" for n in range(3000)]
    served.configure(commands={name: {"text": "a text of some length" * 4} for name in names})
    ran = served.tetrad("reload")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count("\n") == 1 + len(names)
    assert len(ran.out) > room
    served.wait_for("server.reloaded")


def test_a_start_reports_all_of_very_many_listeners(prepared: MakeDaemon) -> None:
    """The message is larger than a pipe buffer, and is written in several pieces."""
    asked = prepared()
    room = "s" * (95 - len(asked.folder))
    sockets = [f"{asked.folder}/{room}{n:04d}" for n in range(700)]
    asked.configure(listen=[{"port": 0}, *({"address": f"unix:{path}"} for path in sockets)])
    ran = asked.tetrad("start")
    asked.adopt(ran.out)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count("unix:") == len(sockets)


def test_a_port_of_another_program_is_not_attributed_to_the_daemon(
    shared_daemon: MakeDaemon,
) -> None:
    """The other program uses the same port number at another address."""
    served = shared_daemon()
    with socket.socket() as other:
        other.bind(("127.0.0.2", served.port))
        other.listen()
        served.configure(listen=[{"port": 0}, {"address": "127.0.0.2", "port": served.port}])
        ran = served.tetrad("reload")
    served.configure(listen=[{"port": 0}])
    assert ran.status == 1
    assert f"127.0.0.2:{served.port}: address already in use; another program listens" in ran.err


def test_the_config_reader_ignores_signals_for_the_daemon(daemon: MakeDaemon) -> None:
    """Ctrl-C in the terminal of `tetrad run` signals all its processes, also the config reader."""
    served = daemon()
    text = pathlib.Path(served.file).read_bytes()
    before = set(children_of(served.pid))
    os.unlink(served.file)
    os.mkfifo(served.file)
    served.signal(signal.SIGHUP)
    reader = until(lambda: set(children_of(served.pid)) - before, "the config reader").pop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(reader, number)
    pathlib.Path(served.file).write_bytes(text)
    assert served.wait_for("server.reloaded")["changes"] == {}


def test_a_full_standard_output_is_reported(shared_daemon: MakeDaemon) -> None:
    """The error of `tetrad client` names standard output, not the server."""
    served = shared_daemon()
    with open("/dev/full", "w", encoding="ascii") as full:
        port = ("--port", str(served.port))
        command = [sys.executable, "-m", "tetrad", "client", *port, "time"]
        ran = run(command, served.environment, stdout=full)
    assert ran.status == 1
    assert ran.err == "tetrad: standard output: no space left on device\n"


def test_installed_files_are_compared_byte_by_byte(tmp_path: pathlib.Path) -> None:
    """An edited configuration is detected also if it is not valid UTF-8."""
    root = tmp_path / "root"
    (root / "etc" / "tetrad").mkdir(parents=True)
    (root / "etc" / "tetrad" / "tetrad.yaml").write_bytes(b"# caf\xe9\n")
    command = [sys.executable, "-m", "tetrad", "install", "--dry-run", "--root", str(root)]
    ran = run(command, environment(str(tmp_path)))
    assert (ran.status, ran.err) == (0, "")
    assert "the edited configuration is kept" in ran.out
    with open("/dev/full", "w", encoding="ascii") as full:
        ran = run(command, environment(str(tmp_path)), stdout=full)
    assert (ran.status, ran.err) == (1, "tetrad: standard output: no space left on device\n")
