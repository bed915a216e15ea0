"""Upgrades: the master executes another version in the same process, and sessions continue."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.integration.launch.test_socket_activation import START_AS_SYSTEMD_DOES
from tests.integration.system.test_sd_notify import Manager
from tests.support.clients import ANSWER
from tests.support.installations import Installation
from tests.support.log_accounting import Sessions, count_events
from tests.support.processes import (
    children_of,
    descriptors_of,
    in_background,
    run,
    stopped,
    title_of,
    until,
)
from tetrad import __version__

if TYPE_CHECKING:
    import pathlib

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon
    from tests.support.processes import Ran

Edit = tuple[str, str, str]

ECHO = [{"port": 0}, {"port": 0, "service": "echo"}]

SHORT_TRIAL: Edit = (
    "master/helper_process.py",
    "HELPER_TIMEOUT_SECONDS = 30.0",
    "HELPER_TIMEOUT_SECONDS = 3.0",
)

HANGING_TRIAL: Edit = (
    "helpers/upgrade_checks.py",
    "import marshal\n",
    "import time\ntime.sleep(1000)\nimport marshal\n",
)


class Upgradable(Protocol):
    """Installs a copy of the package, and starts a daemon that uses it."""

    def __call__(self, *edits: Edit, **settings: object) -> tuple[Daemon, Installation]:
        """Return the daemon and the installation; the edits are in the version that is started."""
        ...


@pytest.fixture
def upgradable(prepared: MakeDaemon, tmp_path: pathlib.Path) -> Upgradable:
    """Return a function that starts a daemon whose code can be replaced."""

    def make(*edits: Edit, **settings: Any) -> tuple[Daemon, Installation]:  # noqa: ANN401
        installed = Installation(str(tmp_path))
        if edits:
            installed.publish(*edits)
        served = prepared(**settings)
        served.environment |= installed.environment
        return served.start(), installed

    return make


def upgrade(served: Daemon) -> Ran:
    """Run `tetrad upgrade`, and check that it succeeds."""
    ran = served.tetrad("upgrade")
    assert (ran.status, ran.err) == (0, "")
    return ran


def assert_fails(served: Daemon, status: int, *words: str) -> None:
    """Check that an upgrade fails with these words, and that the old version keeps serving."""
    before = served.status()
    ran = served.tetrad("upgrade")
    assert ran.status == status, ran
    assert all(word in ran.err for word in words), ran.err
    assert_untouched(served, before)


def assert_untouched(served: Daemon, before: dict[str, Any]) -> None:
    """Check that the same version runs with the same sessions, and serves new clients."""
    after = served.status()
    same = ("pid", "version", "started", "upgrades", "listeners", "sessions")
    ages = {"sessions": [{**one, "age": 0} for one in before["sessions"]]}
    now = {"sessions": [{**one, "age": 0} for one in after["sessions"]]}
    assert {k: (after | now)[k] for k in same} == {k: (before | ages)[k] for k in same}
    assert ANSWER.fullmatch(served.connect().ask())


def ask(served: Daemon, request: bytes) -> Client:
    """Send a request to the control socket, and return the connection."""
    client = served.connect_to_path("control.sock")
    client.send(request + b"\n")
    return client


# A successful upgrade


def test_an_upgrade_changes_the_version_and_nothing_else(upgradable: Upgradable) -> None:
    """The pid, start time, port and sessions stay, also a session inside an incomplete command."""
    served, installed = upgradable(listen=ECHO)
    waiting, incomplete, echoing = served.served(), served.connect(), served.connect(1)
    incomplete.send_and_wait(b"ti")
    assert echoing.echo(b"before") == b"before"
    before = served.status()
    version = installed.publish()
    message = f"tetrad: upgraded {__version__} -> {version} (pid {served.pid}, 3 sessions kept)\n"
    assert upgrade(served).out == message
    after = served.status()
    assert (after["version"], after["upgrades"]) == (version, 1)
    assert after["upgraded"] > after["started"] == before["started"]
    assert after["uptime"] > before["uptime"]
    same = ("pid", "listeners", "clients", "handlers", "accepted", "refused")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    incomplete.send(b"me")
    assert ANSWER.fullmatch(incomplete.read(19))
    assert ANSWER.fullmatch(waiting.ask())
    assert echoing.echo(b"after") == b"after"
    assert ANSWER.fullmatch(served.connect().ask())
    event = served.wait_for("server.upgraded")
    assert (event["version"], event["from"], event["pid"]) == (version, __version__, served.pid)


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
    assert f"{__version__} -> {__version__}" in upgrade(served).out
    assert f"{__version__} -> {__version__}" in upgrade(served).out
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


def test_sigusr2_upgrades_like_the_command(upgradable: Upgradable) -> None:
    """SIGUSR2 to the master has the same effect as `tetrad upgrade`."""
    served, installed = upgradable()
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
        output = upgrade(served).out
    assert 'access.deny: [] -> ["127.0.0.2/32"]' in output
    assert denied.read_all() == b""
    assert served.connect(source="127.0.0.2").is_refused()
    served.log_file = os.path.join(served.folder, "other.log")
    assert "access.deny" in served.wait_for("server.upgraded")["changes"]


def test_a_reload_with_another_installed_version_is_refused(
    upgradable: Upgradable,
) -> None:
    """Between the installation and the upgrade, the error message names `tetrad upgrade`."""
    served, installed = upgradable()
    version = installed.publish()
    ran = served.tetrad("reload")
    assert ran.status == 1
    assert (
        f"version {version} is installed, version {__version__} is running: tetrad upgrade"
        in ran.err
    )
    upgrade(served)
    assert served.tetrad("reload").status == 0


def test_an_upgrade_of_a_stopped_daemon_fails(prepared: MakeDaemon) -> None:
    """The exit status is 7, as for a reload."""
    ran = prepared().tetrad("upgrade")
    assert (ran.status, ran.err) == (7, "tetrad: not running\n")


# Repeated upgrades under load


def upgrade_under_load(upgradable: Upgradable, turns: int, figure: Figure) -> None:
    """Upgrade this many times with new clients, waiting clients and incomplete commands."""
    served, installed = upgradable()
    staying = [served.served() for _ in range(3)]
    incomplete = [served.connect() for _ in range(2)]
    sessions = Sessions(served)
    counts = []
    with sessions.under_load(clients=3):
        for _ in range(turns):
            for client in incomplete:
                client.send_and_wait(b"ti")
            version = installed.publish()
            upgrade(served)
            assert all(ANSWER.fullmatch(client.ask()) for client in staying)
            assert all(ANSWER.fullmatch(client.ask(b"me")) for client in incomplete)
            until(lambda: served.loggers, "the logger")
            counts.append(len(descriptors_of(served.pid)))
    after = served.status()
    assert (after["version"], after["upgrades"], after["pid"]) == (version, turns, served.pid)
    until(lambda: len(descriptors_of(served.pid)) == min(counts), "no descriptor leak")
    for client in [*staying, *incomplete]:
        client.quit()
    served.stop()
    assert_complete(served, sessions.sent + turns + 5 * (3 + turns) + len(staying))
    figure(f"{turns} upgrades, {sessions.served} sessions meanwhile, none failed, none was cut")


def test_twenty_upgrades_under_load(upgradable: Upgradable, figure: Figure) -> None:
    """No session fails, no log line is lost or incomplete, and no descriptor leaks."""
    upgrade_under_load(upgradable, 20, figure)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_upgrades_under_load(upgradable: Upgradable, figure: Figure) -> None:
    """The same with a hundred upgrades."""
    upgrade_under_load(upgradable, 100, figure)


def assert_complete(served: Daemon, sent: int) -> None:
    """Check that the log has all events, both ends of each session, and no connection id twice."""
    lines = served.events()
    begun = [line["connection"] for line in lines if line["event"] == "client.connected"]
    ended = [line["connection"] for line in lines if line["event"] == "client.disconnected"]
    assert sorted(begun) == sorted(ended)
    assert len(set(begun)) == len(begun)
    assert count_events(lines) == (sent, 0, 0)


def test_an_upgrade_replaces_idle_handlers(upgradable: Upgradable) -> None:
    """Idle handlers and reused handlers exit; spare handlers of the new version replace them."""
    served, installed = upgradable(listen=ECHO, handlers={"spare": 2, "clients_each": 5})
    until(lambda: served.status()["handlers"]["idle"] == 2, "the spare handlers")
    old = [served.watch(pid) for pid in served.handlers]
    sessions = Sessions(served)
    with sessions.under_load(clients=2):
        for _ in range(3):
            installed.publish(
                ("handler/services.py", "session.send(data)", "session.send(data[::-1])")
            )
            upgrade(served)
    assert all(process.has_ended() for process in old)
    until(lambda: served.status()["handlers"]["idle"] == 2, "the spare handlers")
    assert served.connect(1).echo(b"abc") == b"cba"


# A new version that cannot start


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (("handler/session.py", "class Session:", "class Session"), "SyntaxError: expected"),
        (("logger/process.py", "import structlog", "import no_such_thing"), "No module named"),
        (("helpers/config_reader.py", "import sys", "from sys import nothing"), "ImportError"),
        (
            ("master/process.py", "self.title = ProcessTitle()", "raise ValueError('so')"),
            "ValueError: so",
        ),
        (("handler/fast_path.py", "now = time_ns()", "now = 1 // 0"), "ZeroDivisionError"),
        (
            ("master/handler_pool.py", "def restore_state(", "def restore_slate("),
            "'HandlerPool' object has no attribute 'restore_state'",
        ),
        (("master/connections.py", '"address",', '"address", "cipher",'), "a client with address"),
        (
            ("ipc/saved_state.py", "FORMAT = 3", "FORMAT = 4"),
            "cannot take over from version",
        ),
        (("__init__.py", '"""tetrad', "tetrad"), "the upgrade trial exited with status 1: Syntax"),
        (
            ("helpers/upgrade_trial.py", "signal.alarm(", "os._exit("),
            "the upgrade trial exited with status 120",
        ),
        (
            ("helpers/upgrade_checks.py", '"config": config', '"confit": config'),
            "the new version cannot start",
        ),
    ],
)
def test_a_version_that_cannot_start_changes_nothing(
    upgradable: Upgradable, edit: Edit, word: str
) -> None:
    """The error is reported, the old version keeps serving, and a corrected version is accepted."""
    served, installed = upgradable()
    client = served.served()
    served.wait_for("client.command")
    before, held = served.status(), descriptors_of(served.pid)
    installed.publish(edit)
    if edit[0] == "__init__.py":  # no command can run either
        served.signal(signal.SIGUSR2)
    else:
        outcome = json.loads(ask(served, b"upgrade").read_all())
        assert word in outcome["errors"][0]
    assert word in served.wait_for("server.upgrade_failed")["errors"][0]
    version = installed.publish()
    assert_untouched(served, before)
    until(lambda: descriptors_of(served.pid).items() <= held.items(), "no descriptor leak")
    assert version in upgrade(served).out
    assert ANSWER.fullmatch(client.ask())


def test_the_command_reports_the_error_of_the_new_version(upgradable: Upgradable) -> None:
    """The exit status is 1, not 78: the configuration file is valid."""
    served, installed = upgradable()
    installed.publish(
        ("master/process.py", "self.title = ProcessTitle()", "raise ValueError('so')")
    )
    assert_fails(served, 1, "not upgraded; the old version keeps serving", "ValueError: so")


def test_an_upgrade_trial_that_hangs_is_killed(upgradable: Upgradable) -> None:
    """The old version limits the time of the trial, and then kills it."""
    served, installed = upgradable(SHORT_TRIAL)
    served.wait_for("server.listening")
    installed.publish(HANGING_TRIAL)
    assert_fails(served, 1, "the upgrade trial took longer than")
    until(lambda: not trial_of(served), "the end of the trial")


def test_a_missing_interpreter_is_reported(upgradable: Upgradable) -> None:
    """If exec fails, the old version keeps its handlers, listeners and descriptors."""
    served, installed = upgradable(handlers={"spare": 1})
    until(lambda: served.status()["handlers"]["idle"] == 1, "a spare handler")
    spare = served.handlers
    installed.publish(
        ("helpers/upgrade_checks.py", 'exec_commands.command("master.process")', '["/no/python"]')
    )
    held = descriptors_of(served.pid)
    outcome = json.loads(ask(served, b"upgrade").read_all())
    assert outcome == {
        "errors": ["the new version cannot start: /no/python: no such file or directory"],
        "is_file_bad": False,
    }
    until(lambda: descriptors_of(served.pid).items() <= held.items(), "no descriptor leak")
    assert served.handlers == spare
    assert served.served()
    assert served.status()["upgrades"] == 0
    served.signal(signal.SIGUSR1)
    served.wait_for("log.reopened")


# A configuration file that cannot be applied


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"daemon": {"pidfile": "other.pid"}}, "daemon.pidfile cannot change"),
        ({"log": {"file": "missing/it.log"}}, "log.file: "),
        (
            {"listen": [{"port": 0}, {"address": "unix:t.sock"}]},
            "an upgrade cannot change listeners",
        ),
        ({"listen": [{"address": "unix:t.sock"}]}, "an upgrade cannot change listeners"),
        ({"limits": {"clients": "many"}}, "limits.clients"),
    ],
)
def test_a_file_that_cannot_be_applied_is_refused(
    upgradable: Upgradable, settings: dict[str, object], word: str
) -> None:
    """As for a reload, the log and the answer to the command have the error."""
    served, installed = upgradable()
    before, pidfile = served.status(), served.settings["daemon"]["pidfile"]
    served.configure(**settings)
    installed.publish()
    outcome = json.loads(ask(served, b"upgrade").read_all())
    assert outcome["is_file_bad"]
    assert word in outcome["errors"][0]
    assert word in served.wait_for("server.upgrade_failed")["errors"][0]
    served.configure(daemon={"pidfile": pidfile}, listen=[{"port": 0}], log={"file": "tetrad.log"})
    served.configure(limits={"clients": 1000})
    assert_untouched(served, before)


def test_an_invalid_file_is_exit_status_78(upgradable: Upgradable) -> None:
    """`check` and `reload` exit with the same status."""
    served, _ = upgradable()
    served.configure(listen=[{"port": 0}, {"address": "unix:t.sock"}])
    assert_fails(served, 78, "restore them, run tetrad upgrade")
    served.configure(listen="nothing")
    assert served.tetrad("upgrade").status == 78


# Events during an upgrade


class PausedUpgrade:
    """An upgrade that pauses at the start of the new version, until `resume` is called."""

    def __init__(self, served: Daemon, installed: Installation) -> None:
        self._paused_file = os.path.join(served.folder, "begun")
        self._resume_file = os.path.join(served.folder, "go")
        pause = (
            f"    open({self._paused_file!r}, 'w')\n"
            f"    while not os.path.exists({self._resume_file!r}):\n        time.sleep(0.01)\n"
        )
        self.version = installed.publish(("master/process.py", "    gc.disable()\n", pause))
        self.outcome: list[bytes] = []
        client = ask(served, b"upgrade")
        self._reader = in_background(lambda: self.outcome.append(client.read_all()))
        until(lambda: os.path.exists(self._paused_file), "the new version")

    def resume(self) -> dict[str, Any]:
        """Let the new version continue; return the answer to the upgrade request."""
        with open(self._resume_file, "w", encoding="ascii"):
            pass
        self._reader.join()
        return dict(json.loads(self.outcome[0] or b"{}"))


def test_events_during_the_exec_are_not_missed(upgradable: Upgradable) -> None:
    """The new version handles a finished session, a killed handler, and new connections."""
    served, installed = upgradable(limits={"clients": 3})
    served.allow_lost_handlers = True
    quitting, killed, staying = (served.served() for _ in range(3))
    paused = PausedUpgrade(served, installed)
    assert quitting.quit() == b"quit"
    victim = served.watch(served._handler_of(killed.name))  # noqa: SLF001
    victim.signal(signal.SIGKILL)
    assert victim.has_ended()
    arriving = [served.connect(), served.connect()]
    for client in arriving:
        client.send(b"time")
    assert paused.resume()["version"] == paused.version
    assert all(ANSWER.fullmatch(client.read(19)) for client in arriving)
    assert ANSWER.fullmatch(staying.ask())
    assert served.wait_for("handler.lost")["client"] == killed.name
    assert served.connect().is_refused()
    assert served.status()["clients"]["now"] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_signal_during_the_exec_takes_effect(upgradable: Upgradable, number: int) -> None:
    """The signal stays pending; the new version then ends the sessions and stops."""
    served, installed = upgradable()
    client = served.served()
    paused = PausedUpgrade(served, installed)
    served.signal(number)
    paused.resume()
    assert client.read_all() == b""
    assert served.is_gone()
    assert served.events()[-1]["event"] == "server.stopped"
    assert not os.path.exists(served.pidfile)


def test_a_reload_signal_during_the_exec_takes_effect(upgradable: Upgradable) -> None:
    """The new version reads the file again, because it changed after the trial had read it."""
    served, installed = upgradable()
    paused = PausedUpgrade(served, installed)
    served.configure(limits={"clients": 7})
    served.signal(signal.SIGHUP)
    paused.resume()
    assert served.wait_for("server.reloaded")["changes"] == {"limits.clients": "1000 -> 7"}


def trial_of(served: Daemon) -> int:
    """Return the pid of the upgrade trial, a child of its supervisor; 0 if none runs."""
    trials = [pid for child in children_of(served.pid) for pid in children_of(child)]
    return next((pid for pid in trials if "tetrad.helpers.upgrade_trial" in title_of(pid)), 0)


class PausedTrial:
    """An upgrade whose trial waits until `resume` or `finish` is called."""

    def __init__(self, served: Daemon, installed: Installation) -> None:
        self._resume_file = os.path.join(served.folder, "go")
        wait = (
            f"import os, time\nwhile not os.path.exists({self._resume_file!r}): time.sleep(0.01)\n"
        )
        self.version = installed.publish(
            ("helpers/upgrade_checks.py", "import marshal\n", wait + "import marshal\n")
        )
        self.request = ask(served, b"upgrade")
        self.process = served.watch(until(lambda: trial_of(served), "the upgrade trial"))

    def resume(self) -> None:
        """Let the trial continue."""
        with open(self._resume_file, "w", encoding="ascii"):
            pass

    def finish(self) -> dict[str, Any]:
        """Let the trial continue; return the answer to the upgrade request."""
        self.resume()
        return dict(json.loads(self.request.read_all()))


@pytest.mark.parametrize(
    ("number", "event"), [(signal.SIGHUP, "server.reloaded"), (signal.SIGTERM, "server.stopped")]
)
def test_a_signal_at_the_end_of_a_trial_takes_effect(
    upgradable: Upgradable, number: int, event: str
) -> None:
    """Either the old version or the new one handles the signal."""
    served, installed = upgradable()
    trial = PausedTrial(served, installed)
    with stopped(served.pid):
        trial.resume()
        assert trial.process.has_ended()
        served.signal(number)
    served.wait_for(event)


REQUEUE_SIGNALS = """
import os, signal
from tetrad.master.signals import Signals
from tetrad.system import fork
from tetrad.system.event_loop import EventLoop
signals = Signals(EventLoop(), print, lambda number, frame: None)
signals.install()
signals.requeue()
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.raise_signal(number)
with fork.signals_blocked:
    signals.requeue()
    print(*sorted(signal.sigpending()))
"""


def test_received_signals_are_not_lost_by_an_exec() -> None:
    """They are pending again, until the executed program unblocks them."""
    ran = run([sys.executable, "-c", REQUEUE_SIGNALS], dict(os.environ))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.split() == [f"{signal.SIGHUP:d}", f"{signal.SIGTERM:d}"]


def test_a_stop_ends_the_upgrade_trial(upgradable: Upgradable) -> None:
    """The stop cancels the upgrade, and the trial does not outlive the daemon."""
    served, installed = upgradable()
    trial = PausedTrial(served, installed)
    served.signal(signal.SIGTERM)
    assert served.is_gone()
    assert trial.process.has_ended(2)
    assert json.loads(trial.request.read_all())["errors"] == ["the daemon is stopping"]
    assert not served.events("server.upgraded")


def test_a_stopping_daemon_is_not_upgraded(upgradable: Upgradable) -> None:
    """While sessions finish, a request is refused and SIGUSR2 is ignored."""
    served, installed = upgradable()
    client = served.connect()
    client.send_and_wait(b"ti")
    installed.publish()
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    served.signal(signal.SIGUSR2)
    refused = json.loads(ask(served, b"upgrade").read_all())
    assert refused["errors"] == ["the daemon is stopping"]
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.is_gone()


def test_one_upgrade_at_a_time(upgradable: Upgradable) -> None:
    """A second request is refused; the new version handles a signal after the first upgrade."""
    served, installed = upgradable()
    trial = PausedTrial(served, installed)
    second = json.loads(ask(served, b"upgrade").read_all())
    assert second["errors"] == ["an upgrade is in progress"]
    served.signal(signal.SIGUSR2)
    assert ANSWER.fullmatch(served.connect().ask())
    assert trial.finish()["version"] == trial.version
    served.wait_for("server.upgraded", count=2)
    assert served.status()["upgrades"] == 2


def test_a_reload_waits_for_the_end_of_the_trial(upgradable: Upgradable) -> None:
    """The request is then answered with an error, and the new version reads the file again."""
    served, installed = upgradable()
    trial = PausedTrial(served, installed)
    reloading = ask(served, b"reload")
    served.configure(limits={"clients": 7})
    assert served.status()["clients"]["limit"] == 1000
    trial.finish()
    assert "the daemon is being upgraded" in json.loads(reloading.read_all())["errors"][0]
    served.wait_for("server.reloaded")
    assert served.status()["clients"]["limit"] == 7


def test_a_reload_follows_an_upgrade_that_fails(upgradable: Upgradable) -> None:
    """The old version handles the request that waited."""
    served, installed = upgradable(SHORT_TRIAL)
    installed.publish(HANGING_TRIAL)
    request = ask(served, b"upgrade")
    reloading = ask(served, b"reload")
    assert "took longer" in json.loads(request.read_all())["errors"][0]
    assert "is installed" in json.loads(reloading.read_all())["errors"][0]


def test_an_upgrade_continues_if_its_client_disconnects(upgradable: Upgradable) -> None:
    """A closed control connection does not cancel the upgrade."""
    served, installed = upgradable()
    trial = PausedTrial(served, installed)
    trial.request.close()
    trial.resume()
    served.wait_for("server.upgraded")
    assert served.status()["version"] == trial.version


# After an upgrade


def test_a_crash_of_an_old_handler_is_detected(upgradable: Upgradable) -> None:
    """The new version supervises the handlers that the old version forked."""
    served, installed = upgradable()
    served.allow_lost_handlers = True
    client = served.served()
    handler = served.handlers[0]
    installed.publish()
    upgrade(served)
    os.kill(handler, signal.SIGKILL)
    lost = served.wait_for("handler.lost")
    assert (lost["handler"], lost["client"]) == (handler, client.name)
    assert served.status()["handlers"] == {"now": 0, "idle": 0, "lost": 1}


def test_limits_count_sessions_of_the_old_version(upgradable: Upgradable) -> None:
    """`clients` and `clients_per_source` include them until they end."""
    served, installed = upgradable(limits={"clients": 3, "clients_per_source": 2})
    first, second = served.served(), served.served()
    other = served.served(source="127.0.0.2")
    installed.publish()
    upgrade(served)
    assert served.connect().is_refused()
    other.quit()
    until(lambda: served.status()["clients"]["now"] == 2, "one session less")
    assert served.connect().is_refused()
    assert served.status()["refused"] == dict(
        served.status()["refused"], clients=1, clients_per_source=1
    )
    first.quit()
    until(lambda: served.status()["clients"]["now"] == 1, "one session less")
    assert ANSWER.fullmatch(served.served().ask())
    assert ANSWER.fullmatch(second.ask())


def test_counters_continue(upgradable: Upgradable) -> None:
    """The counts of the status continue, and connection ids are not reused."""
    served, installed = upgradable(limits={"clients": 2})
    served.allow_lost_handlers = True
    clients = [served.served(), served.served()]
    assert served.connect().is_refused()
    os.kill(served.handlers[0], signal.SIGKILL)
    served.wait_for("handler.lost")
    before = served.status()
    installed.publish()
    upgrade(served)
    after = served.status()
    assert (after["accepted"], after["refused"]["clients"]) == (2, 1)
    assert (after["clients"]["peak"], after["handlers"]["lost"]) == (2, 1)
    assert after["log"]["written"] >= before["log"]["written"]
    clients.append(served.served())
    until(lambda: len(served.events("client.connected")) == len(clients), "the third session")
    ids = sorted(line["connection"].split("-") for line in served.events("client.connected"))
    assert [serial for _, serial in ids] == ["1", "2", "4"]
    assert len({run_id for run_id, _ in ids}) == 1


@pytest.mark.parametrize("incomplete", [False, True], ids=["idle", "in the middle of a command"])
def test_a_stop_ends_sessions_of_the_old_version(upgradable: Upgradable, incomplete: bool) -> None:  # noqa: FBT001
    """`stop_timeout` applies to them, also right after the upgrade."""
    served, installed = upgradable(daemon={"stop_timeout": "300ms"})
    client = served.served()
    if incomplete:
        client.send_and_wait(b"ti")
    handler = served.watch(served.handlers[0])
    installed.publish()
    upgrade(served)
    served.signal(signal.SIGTERM)
    assert client.read_all() == b""
    assert handler.has_ended()
    assert served.is_gone()
    events = [line["event"] for line in served.events()]
    assert events[-1] == "server.stopped"
    assert events.count("client.disconnected") == 1


def test_all_processes_end_if_the_upgraded_master_is_killed(upgradable: Upgradable) -> None:
    """Handlers of both versions exit, the lock is released, and the next start succeeds."""
    served, installed = upgradable()
    clients = [served.served()]
    installed.publish()
    upgrade(served)
    clients.append(served.served())
    children = [served.watch(pid) for pid in served.processes[1:]]
    served.signal(signal.SIGKILL)
    assert served.is_gone()
    assert all(child.has_ended(2) for child in children)
    assert "started" in served.tetrad("start").out
    served.adopt(served.tetrad("status").out)


def test_the_master_keeps_the_lock_of_the_pidfile(upgradable: Upgradable) -> None:
    """A second start reports the running daemon."""
    served, installed = upgradable()
    installed.publish()
    upgrade(served)
    assert f"already running (pid {served.pid})" in served.tetrad("start").out


# Foreground, service manager and PROXY header


def test_a_daemon_in_the_foreground_is_upgraded(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """The new version logs to the same terminal, and Ctrl-C stops it."""
    installed = Installation(str(tmp_path))
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
    assert f"-> {version} (pid {process.pid}" in upgrade(served).out
    until(lambda: has_logged("server.upgraded"), "the event of the upgrade")
    served.signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert has_logged("server.stopped")


def test_passed_sockets_stay_open_after_an_upgrade(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """They still belong to the service manager: after a stop clients queue in the backlog."""
    installed = Installation(str(tmp_path))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port, fd = listening.getsockname()[1], listening.fileno()
        served = prepared(listen=[{"address": "127.0.0.1", "port": port}])
        served.environment |= installed.environment
        command = [sys.executable, "-c", START_AS_SYSTEMD_DOES, f"{fd}", served.file]
        served.adopt(run(command, served.environment, pass_fds=[fd]).out)
        client = served.served()
        assert served.tetrad("reload").status == 0
        installed.publish()
        upgrade(served)
        assert ANSWER.fullmatch(client.ask())
        assert ANSWER.fullmatch(served.served().ask())
        served.configure(listen=[{"port": 0}])
        assert "systemd holds the listeners" in served.tetrad("reload").err
        served.configure(listen=[{"address": "127.0.0.1", "port": port}])
        served.stop()
        with socket.create_connection(("127.0.0.1", port)):
            pass


def collect(manager: Manager, messages: list[str]) -> None:
    """Collect the messages to a service manager, until the daemon stops."""
    while "STOPPING=1" not in messages:
        messages += manager.receive()


def test_the_service_manager_is_notified_of_an_upgrade(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """It receives RELOADING=1, then READY=1, and after that watchdog messages again."""
    installed = Installation(str(tmp_path))
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
        assert served.tetrad(change).status == 0
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
    assert upgrade(served).status == 0
    client.send(b" 4711 65000\r\nquit")
    assert client.read_all() == b"quit"
    assert served.wait_for("client.disconnected")["client"] == "192.0.2.7:4711"
    assert served.status()["clients"]["now"] == 0
