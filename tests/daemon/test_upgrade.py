"""Upgrades: the master executes another version in the same process, and sessions continue."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.control_requests import reload, request_reload
from tests.support.processes import in_background, run, stopped, until
from tests.support.service_manager import Manager
from tests.support.socket_activation import START_AS_SYSTEMD_DOES
from tests.support.upgrades import (
    ECHO,
    upgrade,
    upgrade_by_command,
)
from tetrad import __version__

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon
    from tests.support.installations import Installation
    from tests.support.upgrades import Upgradable, UpgradableDaemon


@pytest.mark.quick
def test_an_upgrade_changes_the_version_and_nothing_else(
    shared_upgradable: UpgradableDaemon,
) -> None:
    """The pid, start time, port and sessions stay, also a session inside an incomplete command."""
    served, installed = shared_upgradable
    waiting, incomplete, echoing = served.served(), served.connect(), served.connect(1)
    incomplete.send_and_wait(b"ti")
    assert echoing.echo(b"before") == b"before"
    before = served.status()
    version = installed.publish()
    step = f"{before['version']} -> {version}"
    message = f"tetrad: upgraded {step} (pid {served.pid}, 3 sessions kept)\n"
    assert upgrade_by_command(served) == message
    after = served.status()
    assert (after["version"], after["upgrades"]) == (version, before["upgrades"] + 1)
    assert after["upgraded"] > after["started"] == before["started"]
    assert after["uptime"] > before["uptime"]
    same = ("pid", "listeners", "clients", "handlers", "accepted", "refused")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    incomplete.send(b"me")
    assert ANSWER.fullmatch(incomplete.read(19))
    assert ANSWER.fullmatch(waiting.ask())
    assert echoing.echo(b"after") == b"after"
    assert ANSWER.fullmatch(served.connect().ask())
    event = served.wait_for("server.upgraded", version=version)
    assert (event["from"], event["pid"]) == (before["version"], served.pid)


@pytest.mark.quick
def test_the_new_version_serves_new_clients(upgradable: Upgradable) -> None:
    """Existing sessions keep the code that they started with."""
    served, installed = upgradable(listen=ECHO)
    old = served.connect(1)
    assert old.echo(b"abc") == b"abc"
    installed.publish(
        ("handler/services.py", "session.send(data)", "session.send(data.swapcase())")
    )
    upgrade(served)
    assert served.connect(1).echo(b"abc") == b"ABC"
    assert old.echo(b"abc") == b"abc"


def test_an_upgrade_to_the_same_version_succeeds(upgradable: Upgradable) -> None:
    """An update of Python or of a library does not change the version of tetrad."""
    served, _ = upgradable()
    assert f"{__version__} -> {__version__}" in upgrade_by_command(served)
    outcome = upgrade(served)
    assert (outcome.old, outcome.version) == (__version__, __version__)
    assert served.status()["upgrades"] == 2


def test_an_upgrade_replaces_the_logger(upgradable: Upgradable) -> None:
    """One logger runs, with the code of the new version."""
    served, installed = upgradable()
    served.wait_for("server.listening")
    before = served.watch(served.logger)
    installed.publish(
        (
            "logger/process.py",
            '"event": fields.pop("event")',
            '"event": fields.pop("event"), "v": 2',
        )
    )
    upgrade(served)
    assert before.has_ended()
    served.served()
    assert served.wait_for("client.command", v=2)
    assert len(served.loggers) == 1
    assert served.status()["log"]["logger"] == served.logger
    assert not served.events("log.lost")


def test_sigusr2_upgrades_like_the_command(shared_upgradable: UpgradableDaemon) -> None:
    """SIGUSR2 to the master has the same effect as `tetrad upgrade`."""
    served, installed = shared_upgradable
    client = served.served()
    version = installed.publish()
    served.signal(signal.SIGUSR2)
    served.wait_for("server.upgraded", version=version)
    assert served.status()["version"] == version
    assert ANSWER.fullmatch(client.ask())


def test_an_upgrade_applies_the_configuration_file(upgradable: Upgradable) -> None:
    """Like a reload, it reports the changed keys, and they apply to new clients."""
    served, installed = upgradable()
    denied = served.served(source="127.0.0.2")
    served.configure(access={"deny": ["127.0.0.2"]}, log={"file": "other.log"})
    installed.publish()
    with stopped(served.logger):  # it then reads the events of both versions together
        output = upgrade_by_command(served)
    assert 'access.deny: [] -> ["127.0.0.2/32"]' in output
    assert denied.read_all() == b""
    assert served.connect(source="127.0.0.2").is_refused()
    served.log_file = os.path.join(served.folder, "other.log")
    assert "access.deny" in served.wait_for("server.upgraded")["changes"]


def test_a_reload_with_another_installed_version_is_refused(
    shared_upgradable: UpgradableDaemon,
) -> None:
    """Between the installation and the upgrade, the error message names `tetrad upgrade`."""
    served, installed = shared_upgradable
    old, version = served.status()["version"], installed.publish()
    ran = served.tetrad("reload")
    assert ran.status == 1
    message = f"version {version} is installed, version {old} is running: tetrad upgrade"
    assert message in ran.err
    upgrade(served)
    assert reload(served) == {}


def test_an_upgrade_of_a_stopped_daemon_fails(prepared: MakeDaemon) -> None:
    """The exit status is 7, as for a reload."""
    asked = prepared()
    ran = asked.tetrad("upgrade")
    assert (ran.status, ran.err) == (7, asked.not_running)


# Foreground, service manager and PROXY header


def test_a_daemon_in_the_foreground_is_upgraded(
    prepared: MakeDaemon, installed: Installation, tmp_path: pathlib.Path
) -> None:
    """The new version logs to the same terminal, and Ctrl-C stops it."""
    served = prepared(log={"file": None})
    served.environment |= installed.environment
    output = str(tmp_path / "output")
    served.settings["log"] = {"format": "console"}
    served.configure()
    process = served.run(output)

    def has_logged(word: str) -> bool:
        with open(output, encoding="utf-8") as file:
            return word in file.read()

    until(lambda: has_logged("server.listening"), "its start")
    version = installed.publish()
    assert f"-> {version} (pid {process.pid}" in upgrade_by_command(served)
    until(lambda: has_logged("server.upgraded"), "the event of the upgrade")
    served.signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert has_logged("server.stopped")


def test_passed_sockets_stay_open_after_an_upgrade(
    prepared: MakeDaemon, installed: Installation
) -> None:
    """They still belong to the service manager: after a stop clients queue in the backlog."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port, fd = listening.getsockname()[1], listening.fileno()
        served = prepared(listen=[{"address": "127.0.0.1", "port": port}])
        served.environment |= installed.environment
        command = [sys.executable, "-c", START_AS_SYSTEMD_DOES, f"{fd}", served.file]
        served.adopt(run(command, served.environment, pass_fds=[fd]).out)
        client = served.served()
        assert reload(served) == {}
        installed.publish()
        upgrade(served)
        assert ANSWER.fullmatch(client.ask())
        assert ANSWER.fullmatch(served.served().ask())
        served.configure(listen=[{"port": 0}])
        assert "systemd holds the listeners" in str(request_reload(served).errors)
        served.configure(listen=[{"address": "127.0.0.1", "port": port}])
        served.stop()
        with socket.create_connection(("127.0.0.1", port)):
            pass


def collect(manager: Manager, messages: list[str]) -> None:
    """Collect the messages to a service manager, until the daemon stops."""
    while "STOPPING=1" not in messages:
        messages += manager.receive()


def test_the_service_manager_is_notified_of_an_upgrade(
    prepared: MakeDaemon, installed: Installation, tmp_path: pathlib.Path
) -> None:
    """It receives RELOADING=1, then READY=1, and after that watchdog messages again."""
    manager = Manager(str(tmp_path / "notify"))
    messages: list[str] = []
    receiving = in_background(lambda: collect(manager, messages))
    served = prepared()
    served.environment |= installed.environment
    served.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    served.start()
    for change in ("upgrade", "reload", "upgrade"):
        messages.clear()
        if change == "upgrade":
            installed.publish()
            upgrade(served)
        else:
            reload(served)
        until(lambda: "READY=1" in messages, "READY=1")
        assert "RELOADING=1" in messages[: messages.index("READY=1")]
        messages.clear()
        until(lambda: "WATCHDOG=1" in messages, "WATCHDOG=1")
    served.stop()
    receiving.join()
    manager.close()


def test_an_incomplete_proxy_header_is_kept(upgradable: Upgradable) -> None:
    """The new version reads the rest of a header that the old one had read in part."""
    served, installed = upgradable(listen=[{"port": 0, "proxy": {"trusted": ["127.0.0.0/8"]}}])
    client = served.connect()
    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.1")
    until(client.was_read, "the first half of the header to be read")
    installed.publish()
    upgrade(served)
    client.send(b" 4711 65000\r\nquit")
    assert client.read_all() == b"quit"
    assert served.wait_for("client.disconnected")["client"] == "192.0.2.7:4711"
    assert served.status()["clients"]["now"] == 0
