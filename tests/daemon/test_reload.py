"""Reloads: the whole file is applied, or nothing of it; the result is reported and logged."""

from __future__ import annotations

import copy
import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.control_requests import reload
from tests.support.processes import memory_of, title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon


@pytest.fixture
def served(shared_daemon: MakeDaemon) -> Iterator[Daemon]:
    """Return a daemon that tests of this module share; then restore its configuration."""
    daemon = shared_daemon()
    settings = copy.deepcopy(daemon.settings)
    yield daemon
    daemon.settings = settings
    daemon.configure()
    reload(daemon)
    # Its line is behind those of all reloads, which the next test must not see.
    daemon.wait_for("client.connected", client=daemon.served().name)


def reload_by_command(daemon: Daemon) -> str:
    """Run `tetrad reload`, check that it succeeds, and return its output."""
    ran = daemon.tetrad("reload")
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def assert_refuses(daemon: Daemon, *words: str, status: int = 78) -> None:
    """Check that a reload fails with these words, and that the old configuration stays.

    The status is 1 if the fault is not in the file.
    """
    before = daemon.status()["listeners"]
    ran = daemon.tetrad("reload")
    assert ran.status == status
    assert all(word in ran.err for word in words), ran.err
    assert daemon.status()["listeners"] == before
    assert ANSWER.fullmatch(daemon.connect().ask())


def test_a_reload_without_changes_is_reported(served: Daemon) -> None:
    """The command reports that nothing changed, and sessions continue."""
    client = served.served()
    assert "nothing changed" in reload_by_command(served)
    assert ANSWER.fullmatch(client.ask())


@pytest.mark.quick
def test_a_reload_reports_the_changes(served: Daemon) -> None:
    """The command and the log have each changed key with its old and new value."""
    served.configure(limits={"clients": 7})
    assert "limits.clients: 1000 -> 7" in reload_by_command(served)
    assert served.wait_for("server.reloaded")["changes"] == {"limits.clients": "1000 -> 7"}


def test_new_limits_apply_to_new_clients(served: Daemon) -> None:
    """Existing sessions continue, even if they exceed the new limit."""
    clients = [served.served(), served.served()]
    served.configure(limits={"clients": 1})
    reload(served)
    assert served.connect().is_refused()
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)


def test_new_timeouts_apply_to_new_clients(served: Daemon) -> None:
    """An existing session keeps its timeouts; the next one has the new timeouts."""
    old = served.served()
    served.configure(session={"first_command_timeout": "200ms", "idle_timeout": "200ms"})
    reload(served)
    assert served.connect().read_all() == b""
    assert ANSWER.fullmatch(old.ask())


def test_a_reload_replaces_spare_handlers(daemon: MakeDaemon) -> None:
    """Spare handlers that were forked before the reload have the old configuration."""
    served = daemon(handlers={"spare": 2})
    until(lambda: served.status()["handlers"]["idle"] == 2, "the spare handlers")
    served.configure(commands={"bye!": {"close": "so long"}})
    reload(served)
    client = served.connect()
    client.send(b"bye!")
    assert client.read_all() == b"so long"


def until_handlers(daemon: Daemon, count: int) -> None:
    """Wait until this number of handlers runs."""
    until(lambda: len(daemon.handlers) == count, f"{count} handlers")


def test_a_reload_changes_the_number_of_spare_handlers(daemon: MakeDaemon) -> None:
    """A reload applies `handlers.spare`: it forks spare handlers, or ends them."""
    served = daemon()
    for spare in (3, 0):
        served.configure(handlers={"spare": spare})
        reload(served)
        until_handlers(served, spare)


@pytest.mark.quick
def test_a_reload_opens_and_closes_listeners(daemon: MakeDaemon) -> None:
    """New listeners are opened, removed ones are closed, and the others stay open."""
    served = daemon(listen=[{"port": 0}, {"address": "unix:old.sock"}])
    port, held = served.port, served.connect_to_path("old.sock")
    assert ANSWER.fullmatch(held.ask())
    served.configure(listen=[{"port": 0}, {"address": "unix:new.sock", "service": "echo"}])
    reload(served)
    assert served.connect_to_path("new.sock").echo(b"hello") == b"hello"
    assert not os.path.exists(os.path.join(served.folder, "old.sock"))
    assert ANSWER.fullmatch(held.ask())
    assert served.status()["listeners"][0]["port"] == port
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_reload_changes_the_service_of_a_listener(served: Daemon) -> None:
    """The socket stays open; new clients get the new service."""
    old = served.served()
    served.configure(listen=[{"port": 0, "service": "echo"}])
    reload(served)
    assert served.connect().echo(b"quit") == b"quit"
    assert ANSWER.fullmatch(old.ask())
    assert served.status()["listeners"][0]["service"] == "echo"


def test_a_reload_ends_denied_sessions(served: Daemon) -> None:
    """New access lists apply to existing sessions too."""
    denied, other = served.served(source="127.0.0.2"), served.served()
    served.configure(access={"deny": ["127.0.0.2"]})
    reload(served)
    assert denied.read_all() == b""
    assert ANSWER.fullmatch(other.ask())


def test_a_reload_changes_the_log_file(daemon: MakeDaemon) -> None:
    """The running logger continues with the new file."""
    served = daemon()
    served.wait_for("server.listening")
    before = served.logger
    served.configure(log={"file": "other.log"})
    reload(served)
    served.log_file = os.path.join(served.folder, "other.log")
    served.served()
    served.wait_for("client.command")
    assert served.logger == before


def test_a_reload_changes_the_log_level(daemon: MakeDaemon) -> None:
    """The new level applies to new sessions."""
    served = daemon()
    served.configure(log={"level": "warning"})
    reload(served)
    client = served.served()
    client.send_and_wait(b"help")
    served.wait_for("client.invalid", client=client.name)
    assert not served.events("client.command")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pidfile", "other.pid"),
        ("control", "other.sock"),
        ("umask", "077"),
        ("working_directory", "home"),
    ],
)
def test_a_change_that_needs_a_restart_is_refused(served: Daemon, key: str, value: str) -> None:
    """The error names the key, and no other change is applied."""
    original = dict(served.settings["daemon"])
    file = f"{served.folder}/changed.yaml"
    served.configure(daemon={key: value}, limits={"clients": 3})
    with open(served.file, encoding="utf-8") as changed, open(file, "w", encoding="utf-8") as out:
        out.write(changed.read())
    os.rename(file, served.file)
    errors = reload_by_signal(served)
    assert f"daemon.{key}" in errors[0]
    served.settings["daemon"] = original
    served.configure()
    assert served.status()["clients"]["limit"] == 1000


def reload_by_signal(daemon: Daemon) -> list[str]:
    """Reload with SIGHUP, because the file may name another control socket; return the errors."""
    daemon.signal(1)
    errors: list[str] = daemon.wait_for("server.reload_failed")["errors"]
    return errors


@pytest.mark.quick
def test_an_invalid_file_is_refused(served: Daemon) -> None:
    """The exit status is 78, each error has its position, and the daemon keeps serving."""
    served.configure(limits={"clients": "many"}, listen=[{"port": 70000}])
    assert_refuses_and_repair(served, f"{served.file}:", "limits.clients", "listen[0].port")


def assert_refuses_and_repair(daemon: Daemon, *words: str) -> None:
    """Check that a reload of an invalid file fails, and repair the file for `tetrad status`."""
    ran = daemon.tetrad("reload")
    assert ran.status == 78
    assert all(word in ran.err for word in words), ran.err
    daemon.configure(limits={"clients": 1000}, listen=[{"port": 0}])
    assert ANSWER.fullmatch(daemon.connect().ask())


def test_a_listener_that_cannot_be_opened_undoes_the_reload(served: Daemon) -> None:
    """If one port is in use, no listener is opened or closed, and no setting changes."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        listen = [{"port": 0}, {"address": "unix:new.sock"}, {"port": taken}]
        served.configure(listen=listen, limits={"clients": 1})
        assert_refuses(served, str(taken), status=1)
    assert not os.path.exists(os.path.join(served.folder, "new.sock"))
    assert served.status()["clients"]["limit"] == 1000


def test_a_log_that_cannot_be_opened_undoes_the_reload(served: Daemon) -> None:
    """The old log file is still written."""
    served.configure(log={"file": "missing/it.log"})
    assert_refuses(served, "missing/it.log", status=1)
    served.wait_for("client.command")


def test_a_reload_needs_a_log_file(served: Daemon) -> None:
    """A daemon has no terminal: a reload refuses a log without a file, like a start."""
    served.configure(log={"file": None})
    assert_refuses(served, "log.file is null, but a daemon has no terminal")


def test_a_log_that_is_a_link_to_the_pidfile_does_not_release_the_lock(served: Daemon) -> None:
    """A process loses its record locks on a file when it closes any descriptor of the file."""
    os.link(served.pidfile, f"{served.folder}/other.log")
    served.configure(log={"file": "other.log"})
    text = "is the same file as daemon.pidfile; name another path"
    assert_refuses(served, "log.file", text, status=1)
    assert "already running" in served.tetrad("start").out


def test_a_missing_file_is_refused(served: Daemon) -> None:
    """SIGHUP changes nothing if the configuration file does not exist."""
    os.rename(served.file, served.file + ".away")
    assert served.file in reload_by_signal(served)[0]
    os.rename(served.file + ".away", served.file)
    assert ANSWER.fullmatch(served.connect().ask())


def test_each_of_several_reloads_is_applied(served: Daemon) -> None:
    """Each is applied before its answer; no process is left, and the title does not change."""
    for clients in range(1, 6):
        served.configure(limits={"clients": clients})
        reload(served)
        assert served.status()["clients"]["limit"] == clients
    until(lambda: len(served.processes) == 2, "the end of the config readers")
    assert title_of(served.pid) == f"tetrad: master {served.file}"


def test_reloads_leak_no_memory(daemon: MakeDaemon) -> None:
    """The garbage collector of the master is off, so a reload must not create cyclic garbage."""
    texts = {f"{number:04}": {"text": "x" * 1024} for number in range(500)}
    served = daemon(commands=texts)
    for _ in range(2):  # allocates the memory that each reload uses temporarily
        reload(served)
    before = memory_of(served.pid)["Anonymous"]
    for _ in range(8):
        reload(served)
    # Of every few reloads, one leaves its temporary memory to the next one.
    assert memory_of(served.pid)["Anonymous"] - before < 4 * len(texts)


def test_a_reload_of_a_stopped_daemon_fails(prepared: MakeDaemon) -> None:
    """The exit status is 7, as in the Linux Standard Base."""
    asked = prepared()
    ran = asked.tetrad("reload")
    assert (ran.status, ran.err) == (7, asked.not_running)


def test_a_reload_distinguishes_listeners_with_port_0(daemon: MakeDaemon) -> None:
    """Two listeners with port 0 have the same name in the file; each keeps its port and service."""
    served = daemon(listen=[{"port": 0}, {"port": 0, "service": "echo"}])
    ports = served.ports
    reload(served)
    assert [one["service"] for one in served.status()["listeners"]] == ["command", "echo"]
    assert served.ports == ports
    client = served.connect(1)
    client.send(b"quit")
    assert client.socket.recv(9) == b"quit"
    client.send(b"still there")
    assert client.socket.recv(99) == b"still there"
