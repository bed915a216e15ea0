"""Operators in a hurry: commands in the wrong order, about the wrong file, without permission."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER
from processes import children_of, environment, run, until

if TYPE_CHECKING:
    from conftest import MakeDaemon
    from daemons import Daemon
    from processes import Ran

BECOME_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
BECOME_NAMELESS = ["setpriv", "--reuid=54321", "--regid=nogroup", "--clear-groups"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

UNCLEAR = "cannot determine the pidfile and control socket from this file"


class Nobody:
    """A user other than root, whose daemon is at the default places."""

    def __init__(self, folder: str) -> None:
        self.home = os.path.join(folder, "home")
        os.mkdir(self.home)
        os.chmod(self.home, 0o777)  # noqa: S103 - it is nobody's
        self.file = os.path.join(self.home, "tetrad.yaml")
        self.say("listen: [{port: 0}]\n")

    def say(self, text: str, name: str = "tetrad.yaml") -> str:
        """Write a configuration, and return its path."""
        path = os.path.join(self.home, name)
        pathlib.Path(path).write_text(text, "utf-8")
        return path

    def tetrad(self, *arguments: str, become: list[str] = BECOME_NOBODY) -> Ran:
        """Run a command as that user."""
        command = [*become, sys.executable, "-m", "tetrad", *arguments]
        return run(command, environment(self.home), cwd="/")


@pytest.fixture
def nobody(nobodys_folder: str) -> Nobody:
    """Return one who has no daemon yet."""
    return Nobody(nobodys_folder)


def in_the_middle_of_a_command(daemon: Daemon) -> None:
    """Have a client who keeps a daemon from stopping for a while, and stop that."""
    client = daemon.connect()
    client.send_and_wait(b"ti")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("server.stopping")


# A file that does not say which daemon it is about.


def test_a_file_with_problems_still_says_which_daemon_is_meant(daemon: MakeDaemon) -> None:
    """As long as what is wrong with it is elsewhere, it can be looked at and stopped."""
    served = daemon()
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
def test_a_file_that_cannot_say_which_daemon_is_meant_stops_none(
    daemon: MakeDaemon, text: str, commands: dict[str, int]
) -> None:
    """It may not be the one at the default places, whether one runs there or not."""
    served = daemon()
    pathlib.Path(served.file).write_text(text, "utf-8")
    for command, status in commands.items():
        ran = served.tetrad(command)
        assert (ran.status, ran.out) == (status, ""), command
        assert re.search(rf"{served.file}:\d:\d+: ", ran.err), command
        assert ran.err.endswith(f"{served.file}: {UNCLEAR}\n"), command
    assert ANSWER.fullmatch(served.connect().ask())


@needs_root
def test_the_daemon_at_the_default_places_is_meant_if_it_says_so(nobody: Nobody) -> None:
    """A file that is spoilt is that daemon's own, or another one's."""
    started = nobody.tetrad("start", "-c", nobody.file)
    assert started.status == 0, started.err
    try:
        nobody.say("listen: [{port: 0}")
        assert nobody.tetrad("status", "-c", nobody.file).status == 0
        assert "server.started" in nobody.tetrad("logs", "-c", nobody.file).out
        other = nobody.say("listen: [{port: 0}", "other.yaml")
        ran = nobody.tetrad("stop", "-c", other)
        assert (ran.status, UNCLEAR in ran.err) == (78, True)
        assert nobody.tetrad("status").status == 0
    finally:
        stopped = nobody.tetrad("stop", "-c", nobody.file)
    assert stopped.out.startswith("tetrad: stopped (pid "), stopped


@needs_root
def test_two_daemons_that_are_each_half_meant_are_not_meant(nobody: Nobody) -> None:
    """The pidfile of the one and the word of the other make no daemon."""
    other = "daemon: {{{}: b.pid, control: b.sock}}\nlog: {{file: b.log}}\nlisten: [{{port: 0}}]\n"
    file = nobody.say(other.format("pidfile"), "b.yaml")
    for one in (nobody.file, file):
        assert nobody.tetrad("start", "-c", one).status == 0
    nobody.say(other.format("pidfil"), "b.yaml")
    ran = nobody.tetrad("stop", "-c", file)
    nobody.say(other.format("pidfile"), "b.yaml")
    ended = [nobody.tetrad("stop", "-c", one).out for one in (nobody.file, file)]
    assert (ran.status, UNCLEAR in ran.err) == (78, True)
    assert all(said.startswith("tetrad: stopped") for said in ended), ended


@pytest.mark.parametrize("name", ["tetrad.pid", "control.sock", "tetrad.log"])
def test_a_listener_in_the_way_of_a_file_of_the_daemon_is_no_defect(
    daemon: MakeDaemon, name: str
) -> None:
    """Whatever the problem is with a file, it is told as that."""
    served = daemon()
    served.configure(listen=[{"port": 0}, {"address": f"unix:{name}"}])
    for command in ("status", "logs", "stop"):
        ran = served.tetrad(command)
        assert ran.status == 0 or f"{served.file}: {UNCLEAR}" in ran.err, ran
    served.configure(listen=[{"port": 0}])
    assert served.tetrad("stop").status == 0


# A daemon that is stopping.


def test_a_start_waits_for_a_daemon_that_is_stopping(daemon: MakeDaemon) -> None:
    """It serves nobody any more; once it is gone, there is another one."""
    served = daemon(daemon={"stop_timeout": "300ms"})
    served.allow_lost_handlers = True
    first = served.pid
    in_the_middle_of_a_command(served)
    ran = served.tetrad("start")
    assert ran.out.startswith("tetrad: started (pid "), ran
    served.adopt(ran.out)
    assert served.pid != first
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_reload_that_comes_too_late_is_not_the_files_fault(daemon: MakeDaemon) -> None:
    """Exit status 78 is for files that are bad."""
    served = daemon(daemon={"stop_timeout": "1h"})
    in_the_middle_of_a_command(served)
    ran = served.tetrad("reload")
    assert (ran.status, ran.err) == (1, "tetrad: not reloaded; the daemon is stopping\n")
    served.signal(signal.SIGQUIT)
    assert served.is_gone()


# What is not allowed.


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
def test_what_a_restart_may_not_do_is_told_while_the_daemon_runs(
    nobody: Nobody, text: str, words: str
) -> None:
    """And a start says the same, with the same status."""
    if "pidfile" not in text:
        assert nobody.tetrad("start", "-c", nobody.file).status == 0
    nobody.say(f"listen: [{{port: 0}}]\n{text}\n")
    ran = nobody.tetrad("restart", "-c", nobody.file)
    nobody.say("listen: [{port: 0}]\n")
    stopped = nobody.tetrad("stop", "-c", nobody.file)
    assert (ran.status, ran.out) == (4, "")
    assert ran.err.startswith(
        f"tetrad: not stopped, because the daemon could not start again; {words}"
    )
    assert stopped.out.startswith("tetrad: stopped") or "pidfile" in text
    nobody.say(f"listen: [{{port: 0}}]\n{text}\n")
    started = nobody.tetrad("start", "-c", nobody.file)
    assert (started.status, started.err) == (4, ran.err.replace("nothing is stopped; ", ""))


@needs_root
def test_a_user_without_a_name_has_a_daemon_all_the_same(nobody: Nobody) -> None:
    """As in a container: what the group of the daemon is, it is already."""
    nobody.say("listen: [{port: 0}]\ndaemon: {group: nogroup}\n")
    try:
        ran = nobody.tetrad("start", "-c", nobody.file, become=BECOME_NAMELESS)
        assert (ran.status, ran.err) == (0, "")
        os.chmod(nobody.file, 0)
        ran = nobody.tetrad("reload", become=BECOME_NAMELESS)
        assert f"{nobody.file}: permission denied; user 54321 needs read access" in ran.err
    finally:
        assert nobody.tetrad("stop", become=BECOME_NAMELESS).status == 0


@needs_root
def test_a_unix_socket_that_may_not_be_made_is_no_question_of_ports(nobody: Nobody) -> None:
    """The hint is about what was asked for."""
    nobody.say("listen: [{address: 'unix:/etc/tetrad-x.sock'}]\n")
    ran = nobody.tetrad("start", "-c", nobody.file)
    expected = "permission denied; user nobody needs write access to directory /etc"
    assert (ran.status, ran.err) == (4, f"tetrad: unix:/etc/tetrad-x.sock: {expected}\n")


# Others.


def test_a_listener_that_is_in_its_own_way_is_told_so(daemon: MakeDaemon) -> None:
    """It is the daemon itself that has the port."""
    served = daemon()
    served.configure(listen=[{"port": served.port}])
    assert served.tetrad("restart").status == 0
    served.adopt(f"(pid {served.status()['pid']}) 127.0.0.1:{served.port} (command)")
    served.configure(listen=[{"address": "0.0.0.0", "port": served.port}])  # noqa: S104 - a test
    ran = served.tetrad("reload")
    assert ran.status == 78
    place = f"127.0.0.1:{served.port}"
    assert f"in use: this daemon listens on {place}; use tetrad restart" in ran.err
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_long_change_is_told_in_short(daemon: MakeDaemon) -> None:
    """Of thousands of networks one is more: that is a line, not a book."""
    networks = [f"10.{n // 256}.{n % 256}.0/24" for n in range(8000)]
    served = daemon(access={"deny": networks})
    served.configure(access={"deny": [*networks, "192.0.2.0/24"]})
    ran = served.tetrad("reload")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("tetrad: reloaded; changed:\n  access.deny: ")
    assert len(ran.out) < 1000


def test_an_answer_longer_than_a_socket_holds_arrives(daemon: MakeDaemon) -> None:
    """As of a reload in which ten thousand commands are new."""
    served = daemon()
    names = [f"{n:04d}" for n in range(10_000)]
    served.configure(commands={name: {"text": "a text of some length" * 4} for name in names})
    ran = served.tetrad("reload")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count("\n") == 1 + len(names)
    served.wait_for("server.reloaded")


def test_a_start_with_very_many_listeners_says_so_whole(prepared: MakeDaemon) -> None:
    """What a pipe has no room for at once comes after it."""
    asked = prepared()
    room = "s" * (95 - len(asked.folder))
    sockets = [f"{asked.folder}/{room}{n:04d}" for n in range(700)]
    asked.configure(listen=[{"port": 0}, *({"address": f"unix:{path}"} for path in sockets)])
    ran = asked.tetrad("start")
    asked.adopt(ran.out)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count("unix:") == len(sockets)


def test_a_port_of_another_program_is_not_this_daemons(daemon: MakeDaemon) -> None:
    """It has the same number at another address."""
    served = daemon()
    with socket.socket() as other:
        other.bind(("127.0.0.2", served.port))
        other.listen()
        served.configure(listen=[{"port": 0}, {"address": "127.0.0.2", "port": served.port}])
        ran = served.tetrad("reload")
    assert ran.status == 78
    assert ran.err.endswith(f"127.0.0.2:{served.port}: address already in use\n")


def test_a_reload_does_not_hear_what_is_meant_for_the_daemon(daemon: MakeDaemon) -> None:
    """Ctrl-C at `tetrad run` reaches all processes of the terminal, who reads a file, too."""
    served = daemon()
    text = pathlib.Path(served.file).read_bytes()
    before = set(children_of(served.pid))
    os.unlink(served.file)
    os.mkfifo(served.file)
    served.signal(signal.SIGHUP)
    reader = until(lambda: set(children_of(served.pid)) - before, "who reads the file").pop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(reader, number)
    pathlib.Path(served.file).write_bytes(text)
    assert served.wait_for("server.reloaded")["changes"] == {}


def test_what_cannot_be_printed_is_not_the_servers_fault(daemon: MakeDaemon) -> None:
    """A full disk behind the client is told as that."""
    served = daemon()
    with open("/dev/full", "w", encoding="ascii") as full:
        port = ("--port", str(served.port))
        command = [sys.executable, "-m", "tetrad", "client", *port, "time"]
        ran = run(command, served.environment, stdout=full)
    assert ran.status == 1
    assert ran.err == "tetrad: standard output: no space left on device\n"


def test_what_is_installed_over_is_compared_byte_by_byte(tmp_path: pathlib.Path) -> None:
    """An edited configuration is that also if its comments are in another encoding."""
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
