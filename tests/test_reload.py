"""Reloading: applied whole, or not at all, and told either way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER
from processes import title_of, until

if TYPE_CHECKING:
    from conftest import MakeDaemon
    from daemons import Daemon
    from processes import Ran


def reload(daemon: Daemon) -> Ran:
    """Reload, which must succeed."""
    ran = daemon.tetrad("reload")
    assert (ran.status, ran.err) == (0, "")
    return ran


def assert_refuses(daemon: Daemon, *words: str) -> None:
    """Check that a reload fails with these words, and that the old configuration serves on."""
    before = daemon.status()["listeners"]
    ran = daemon.tetrad("reload")
    assert ran.status == 78
    assert all(word in ran.err for word in words), ran.err
    assert daemon.status()["listeners"] == before
    assert ANSWER.fullmatch(daemon.connect().ask())


def test_a_reload_without_changes_says_so(daemon: MakeDaemon) -> None:
    """Nothing changes, nothing is disturbed, and the command says just that."""
    served = daemon()
    client = served.served()
    assert "nothing changed" in reload(served).out
    assert ANSWER.fullmatch(client.ask())


def test_a_reload_tells_what_changed(daemon: MakeDaemon) -> None:
    """The command and the log name each key, with its old and its new value."""
    served = daemon()
    served.configure(limits={"clients": 7})
    assert "limits.clients: 1000 -> 7" in reload(served).out
    assert served.wait_for("server.reloaded")["changes"] == {"limits.clients": "1000 -> 7"}


def test_new_limits_are_for_new_clients(daemon: MakeDaemon) -> None:
    """Those who are in stay, though there are more than would be let in now."""
    served = daemon()
    clients = [served.served(), served.served()]
    served.configure(limits={"clients": 1})
    reload(served)
    assert served.connect().is_refused()
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)


def test_new_deadlines_are_for_new_clients(daemon: MakeDaemon) -> None:
    """A session finishes as it began; the next one has the new deadlines."""
    served = daemon()
    old = served.served()
    served.configure(session={"first_command_timeout": "200ms", "idle_timeout": "200ms"})
    reload(served)
    assert served.connect().read_all() == b""
    assert ANSWER.fullmatch(old.ask())


def test_waiting_handlers_take_the_new_configuration(daemon: MakeDaemon) -> None:
    """Handlers that were forked ahead of a reload are replaced by it."""
    served = daemon(handlers={"spare": 2})
    until(lambda: served.status()["handlers"]["idle"] == 2, "spares")
    served.configure(commands={"bye!": {"close": "so long"}})
    reload(served)
    client = served.connect()
    client.send(b"bye!")
    assert client.read_all() == b"so long"


def until_handlers(daemon: Daemon, count: int) -> None:
    """Wait until there are so many handlers."""
    until(lambda: len(daemon.handlers) == count, f"{count} handlers")


def test_spares_come_and_go_with_a_reload(daemon: MakeDaemon) -> None:
    """`spare` is applied to the daemon that runs."""
    served = daemon()
    for spare in (3, 0):
        served.configure(handlers={"spare": spare})
        reload(served)
        until_handlers(served, spare)


def test_listeners_come_and_go_with_a_reload(daemon: MakeDaemon) -> None:
    """New ones are opened, those that are gone are closed, and the others are not touched."""
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


def test_a_listener_may_change_its_service(daemon: MakeDaemon) -> None:
    """The socket stays; new clients get the other service."""
    served = daemon()
    old = served.served()
    served.configure(listen=[{"port": 0, "service": "echo"}])
    reload(served)
    assert served.connect().echo(b"quit") == b"quit"
    assert ANSWER.fullmatch(old.ask())
    assert served.status()["listeners"][0]["service"] == "echo"


def test_who_is_denied_by_a_reload_has_to_leave(daemon: MakeDaemon) -> None:
    """New access lists are for those who are in, too."""
    served = daemon()
    denied, other = served.served(source="127.0.0.2"), served.served()
    served.configure(access={"deny": ["127.0.0.2"]})
    reload(served)
    assert denied.read_all() == b""
    assert ANSWER.fullmatch(other.ask())


def test_the_log_moves_with_a_reload(daemon: MakeDaemon) -> None:
    """File, level and format of the log are applied while it is written."""
    served = daemon()
    served.wait_for("server.listening")
    before = served.logger
    served.configure(log={"file": "other.log"})
    reload(served)
    served.log_file = os.path.join(served.folder, "other.log")
    served.served()
    served.wait_for("client.command")
    assert served.logger == before


def test_the_level_changes_with_a_reload(daemon: MakeDaemon) -> None:
    """Sessions from the reload on are logged by the new level."""
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
def test_what_cannot_change_is_refused(daemon: MakeDaemon, key: str, value: str) -> None:
    """A key that needs a restart is named, and nothing else is applied either."""
    served = daemon()
    kept = dict(served.settings["daemon"])
    file = f"{served.folder}/kept.yaml"
    served.configure(daemon={key: value}, limits={"clients": 3})
    with open(served.file, encoding="utf-8") as changed, open(file, "w", encoding="utf-8") as out:
        out.write(changed.read())
    os.rename(file, served.file)
    problems = reload_by_signal(served)
    assert f"daemon.{key}" in problems[0]
    served.settings["daemon"] = kept
    served.configure()
    assert served.status()["clients"]["limit"] == 1000


def reload_by_signal(daemon: Daemon) -> list[str]:
    """Reload where the file's own control socket may be another one; return the problems."""
    daemon.signal(1)
    problems: list[str] = daemon.wait_for("server.reload_failed")["errors"]
    return problems


def test_a_bad_file_is_refused(daemon: MakeDaemon) -> None:
    """Status 78, with every problem's place; the daemon has not heard of it."""
    served = daemon()
    served.configure(limits={"clients": "many"}, listen=[{"port": 70000}])
    assert_refuses_and_mends(served, f"{served.file}:", "limits.clients", "listen[0].port")


def assert_refuses_and_mends(daemon: Daemon, *words: str) -> None:
    """Check that a reload of a bad file fails; mend it, so that `status` can read it."""
    ran = daemon.tetrad("reload")
    assert ran.status == 78
    assert all(word in ran.err for word in words), ran.err
    daemon.configure(limits={"clients": 1000}, listen=[{"port": 0}])
    assert ANSWER.fullmatch(daemon.connect().ask())


def test_a_listener_that_cannot_be_opened_undoes_the_reload(daemon: MakeDaemon) -> None:
    """One taken port, and none of the new listeners is opened, none of the old ones closed."""
    served = daemon()
    other = daemon()
    listen = [{"port": 0}, {"address": "unix:new.sock"}, {"port": other.port}]
    served.configure(listen=listen, limits={"clients": 1})
    assert_refuses(served, str(other.port))
    assert not os.path.exists(os.path.join(served.folder, "new.sock"))
    assert served.status()["clients"]["limit"] == 1000


def test_a_log_that_cannot_be_opened_undoes_the_reload(daemon: MakeDaemon) -> None:
    """The log goes on where it was."""
    served = daemon()
    served.configure(log={"file": "missing/it.log"})
    assert_refuses(served, "missing/it.log")
    served.wait_for("client.command")


def test_a_daemon_is_not_reloaded_to_a_log_that_nobody_sees(daemon: MakeDaemon) -> None:
    """What a start refuses, a reload does: a daemon has no terminal."""
    served = daemon()
    served.configure(log={"file": None})
    assert_refuses(served, "log.file is null, but a daemon has no terminal")


def test_a_log_that_is_the_pidfile_by_another_name_costs_no_lock(daemon: MakeDaemon) -> None:
    """The master would let go of the lock that says that it runs if it closed such a file."""
    served = daemon()
    os.link(served.pidfile, f"{served.folder}/other.log")
    served.configure(log={"file": "other.log"})
    assert_refuses(served, "log.file", "is the same file as daemon.pidfile; name another path")
    assert "already running" in served.tetrad("start").out


def test_a_file_that_is_gone_is_refused(daemon: MakeDaemon) -> None:
    """SIGHUP without a file to read changes nothing."""
    served = daemon()
    os.rename(served.file, served.file + ".away")
    assert served.file in reload_by_signal(served)[0]
    os.rename(served.file + ".away", served.file)
    assert ANSWER.fullmatch(served.connect().ask())


def test_reloads_in_a_row_are_all_answered(daemon: MakeDaemon) -> None:
    """Each one is applied before the next, and the daemon is none the worse."""
    served = daemon()
    for clients in range(1, 6):
        served.configure(limits={"clients": clients})
        reload(served)
        assert served.status()["clients"]["limit"] == clients
    assert len(served.processes) == 2
    assert title_of(served.pid) == f"tetrad: master {served.file}"


def test_reloads_leave_nothing_behind(daemon: MakeDaemon) -> None:
    """The master collects no garbage, so there must not be any: every fork would copy it."""
    texts = {f"{number:04}": {"text": "x" * 1024} for number in range(500)}
    served = daemon(commands=texts)
    for _ in range(2):  # what a reload takes for the while that it lasts
        reload(served)
    before = anonymous_kib(served.pid)
    for _ in range(6):
        reload(served)
    assert anonymous_kib(served.pid) - before < 2 * len(texts)


def anonymous_kib(pid: int) -> int:
    """Return how much memory a process has that is no file's."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return int(fields["Anonymous"].split()[0])


def test_a_daemon_that_does_not_run_cannot_reload(prepared: MakeDaemon) -> None:
    """Status 7, as of the Linux Standard Base."""
    ran = prepared().tetrad("reload")
    assert (ran.status, ran.err) == (7, "tetrad: not running\n")


def test_listeners_at_any_port_are_not_mistaken_for_each_other(daemon: MakeDaemon) -> None:
    """Two of port 0 have one name in the file, and each stays what it is."""
    served = daemon(listen=[{"port": 0}, {"port": 0, "service": "echo"}])
    ports = served.ports
    assert served.tetrad("reload").status == 0
    assert [one["service"] for one in served.status()["listeners"]] == ["command", "echo"]
    assert served.ports == ports
    echoed = served.connect(1)
    echoed.send(b"quit")
    assert echoed.socket.recv(9) == b"quit"
    echoed.send(b"still there")
    assert echoed.socket.recv(99) == b"still there"
