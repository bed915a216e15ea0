"""Upgrades in place: another version of the code in the same process, and no client can tell."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from clients import ANSWER
from damage.log_accounting import Sessions, count_events
from installations import Installation
from processes import children_of, descriptors_of, in_background, run, stopped, title_of, until
from test_sd_notify import Manager
from test_socket_activation import _START_AS_SYSTEMD_DOES
from tetrad import __version__

if TYPE_CHECKING:
    import pathlib

    from clients import Client
    from conftest import Figure, MakeDaemon
    from daemons import Daemon
    from processes import Ran

Edit = tuple[str, str, str]

ECHO = [{"port": 0}, {"port": 0, "service": "echo"}]

IMPATIENT: Edit = (
    "master/helper_process.py",
    "HELPER_TIMEOUT_SECONDS = 30.0",
    "HELPER_TIMEOUT_SECONDS = 3.0",
)

HANGING: Edit = (
    "helpers/upgrade_checks.py",
    "import marshal\n",
    "import time\ntime.sleep(1000)\nimport marshal\n",
)


class Upgradable(Protocol):
    """Makes a daemon from an installation of its own, and starts it."""

    def __call__(self, *edits: Edit, **settings: object) -> tuple[Daemon, Installation]:
        """Make both; the edits are those of the version that is started."""
        ...


@pytest.fixture
def upgradable(prepared: MakeDaemon, tmp_path: pathlib.Path) -> Upgradable:
    """Make daemons whose code can be replaced."""

    def make(*edits: Edit, **settings: Any) -> tuple[Daemon, Installation]:  # noqa: ANN401
        installed = Installation(str(tmp_path))
        if edits:
            installed.publish(*edits)
        served = prepared(**settings)
        served.environment |= installed.environment
        return served.start(), installed

    return make


def upgrade(served: Daemon) -> Ran:
    """Upgrade, which must succeed."""
    ran = served.tetrad("upgrade")
    assert (ran.status, ran.err) == (0, "")
    return ran


def assert_fails(served: Daemon, status: int, *words: str) -> None:
    """Check that an upgrade fails with these words, and that the old version serves on."""
    before = served.status()
    ran = served.tetrad("upgrade")
    assert ran.status == status, ran
    assert all(word in ran.err for word in words), ran.err
    assert_untouched(served, before)


def assert_untouched(served: Daemon, before: dict[str, Any]) -> None:
    """Check that it is the daemon it was."""
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


# What an upgrade is


def test_an_upgrade_changes_the_version_and_nothing_else(upgradable: Upgradable) -> None:
    """Same process, same start, same port; who is in stays, in the middle of a command or not."""
    served, installed = upgradable(listen=ECHO)
    waiting, halfway, echoing = served.served(), served.connect(), served.connect(1)
    halfway.send_and_wait(b"ti")
    assert echoing.echo(b"before") == b"before"
    before = served.status()
    version = installed.publish()
    said = f"tetrad: upgraded {__version__} -> {version} (pid {served.pid}, 3 sessions kept)\n"
    assert upgrade(served).out == said
    after = served.status()
    assert (after["version"], after["upgrades"]) == (version, 1)
    assert after["upgraded"] > after["started"] == before["started"]
    assert after["uptime"] > before["uptime"]
    same = ("pid", "listeners", "clients", "handlers", "accepted", "refused")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    halfway.send(b"me")
    assert ANSWER.fullmatch(halfway.read(19))
    assert ANSWER.fullmatch(waiting.ask())
    assert echoing.echo(b"after") == b"after"
    assert ANSWER.fullmatch(served.connect().ask())
    told = served.wait_for("server.upgraded")
    assert (told["version"], told["from"], told["pid"]) == (version, __version__, served.pid)


def test_new_clients_get_what_the_new_version_has(upgradable: Upgradable) -> None:
    """Who comes after the upgrade is served by new code, who is in by the code that they met."""
    served, installed = upgradable(listen=ECHO)
    old = served.connect(1)
    assert old.echo(b"abc") == b"abc"
    installed.publish(
        ("handler/services.py", "session.send(data)", "session.send(data.swapcase())")
    )
    upgrade(served)
    assert served.connect(1).echo(b"abc") == b"ABC"
    assert old.echo(b"abc") == b"abc"


def test_the_same_version_may_take_over(upgradable: Upgradable) -> None:
    """After an update of Python, or of a library, the code need not be another."""
    served, _ = upgradable()
    assert f"{__version__} -> {__version__}" in upgrade(served).out
    assert f"{__version__} -> {__version__}" in upgrade(served).out
    assert served.status()["upgrades"] == 2


def test_the_logger_is_replaced_too(upgradable: Upgradable) -> None:
    """Its code is the new version's, and there is one of it."""
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


def test_a_signal_upgrades_as_the_command_does(upgradable: Upgradable) -> None:
    """SIGUSR2 to the master is all it takes."""
    served, installed = upgradable()
    client = served.served()
    version = installed.publish()
    served.signal(signal.SIGUSR2)
    served.wait_for("server.upgraded", version=version)
    assert served.status()["version"] == version
    assert ANSWER.fullmatch(client.ask())


def test_the_file_is_applied(upgradable: Upgradable) -> None:
    """What has changed in it is said, as by a reload, and holds for new clients."""
    served, installed = upgradable()
    denied = served.served(source="127.0.0.2")
    served.configure(access={"deny": ["127.0.0.2"]}, log={"file": "other.log"})
    installed.publish()
    with stopped(served.logger):  # which reads what the new version says together with the order
        said = upgrade(served).out
    assert 'access.deny: [] -> ["127.0.0.2/32"]' in said
    assert denied.read_all() == b""
    assert served.connect(source="127.0.0.2").is_refused()
    served.log_file = os.path.join(served.folder, "other.log")
    assert "access.deny" in served.wait_for("server.upgraded")["changes"]


def test_a_reload_does_not_take_a_plan_of_another_version(upgradable: Upgradable) -> None:
    """Between the installation and the upgrade, it says what to do."""
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


def test_a_daemon_that_does_not_run_is_not_upgraded(prepared: MakeDaemon) -> None:
    """As for a reload, the status says so."""
    ran = prepared().tetrad("upgrade")
    assert (ran.status, ran.err) == (7, "tetrad: not running\n")


# Twenty in a row


def upgrade_under_load(upgradable: Upgradable, turns: int, figure: Figure) -> None:
    """Upgrade that many times, while clients come, others stay, and some are halfway."""
    served, installed = upgradable()
    staying = [served.served() for _ in range(3)]
    halfway = [served.connect() for _ in range(2)]
    sessions = Sessions(served)
    counts = []
    with sessions.under_load(clients=3):
        for _ in range(turns):
            for client in halfway:
                client.send_and_wait(b"ti")
            version = installed.publish()
            upgrade(served)
            assert all(ANSWER.fullmatch(client.ask()) for client in staying)
            assert all(ANSWER.fullmatch(client.ask(b"me")) for client in halfway)
            until(lambda: served.loggers, "the logger")
            counts.append(len(descriptors_of(served.pid)))
    after = served.status()
    assert (after["version"], after["upgrades"], after["pid"]) == (version, turns, served.pid)
    until(lambda: len(descriptors_of(served.pid)) == min(counts), "no descriptor more")
    for client in [*staying, *halfway]:
        client.quit()
    served.stop()
    assert_complete(served, sessions.sent + turns + 5 * (3 + turns) + len(staying))
    figure(f"{turns} upgrades, {sessions.served} sessions meanwhile, none failed, none was cut")


def test_twenty_upgrades_under_load(upgradable: Upgradable, figure: Figure) -> None:
    """No client fails, no session is cut, no line is lost or torn, no descriptor is left."""
    upgrade_under_load(upgradable, 20, figure)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_upgrades_under_load(upgradable: Upgradable, figure: Figure) -> None:
    """As above, a hundred times."""
    upgrade_under_load(upgradable, 100, figure)


def assert_complete(served: Daemon, sent: int) -> None:
    """Check that the log has every event, each session's begin and end, and nobody's id twice."""
    lines = served.events()
    begun = [line["connection"] for line in lines if line["event"] == "client.connected"]
    ended = [line["connection"] for line in lines if line["event"] == "client.disconnected"]
    assert sorted(begun) == sorted(ended)
    assert len(set(begun)) == len(begun)
    assert count_events(lines) == (sent, 0, 0)


def test_waiting_handlers_are_replaced(upgradable: Upgradable) -> None:
    """Handlers that wait, or serve several clients, leave; as many of the new version come."""
    served, installed = upgradable(listen=ECHO, handlers={"spare": 2, "clients_each": 5})
    until(lambda: served.status()["handlers"]["idle"] == 2, "spares")
    old = [served.watch(pid) for pid in served.handlers]
    sessions = Sessions(served)
    with sessions.under_load(clients=2):
        for _ in range(3):
            installed.publish(
                ("handler/services.py", "session.send(data)", "session.send(data[::-1])")
            )
            upgrade(served)
    assert all(process.has_ended() for process in old)
    until(lambda: served.status()["handlers"]["idle"] == 2, "spares")
    assert served.connect(1).echo(b"abc") == b"cba"


# A version that does not start


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
        (("__init__.py", '"""tetrad', "tetrad"), "the upgrade trial failed"),
        (
            ("helpers/upgrade_trial.py", "signal.alarm(", "os._exit("),
            "the upgrade trial failed",
        ),
        (
            ("helpers/upgrade_checks.py", '"config": config', '"confit": config'),
            "the new version cannot start",
        ),
    ],
)
def test_a_version_that_does_not_start_changes_nothing(
    upgradable: Upgradable, edit: Edit, word: str
) -> None:
    """Whatever is wrong with it is told, the old one serves on, and a better one takes over."""
    served, installed = upgradable()
    client = served.served()
    served.wait_for("client.command")
    before, held = served.status(), descriptors_of(served.pid)
    installed.publish(edit)
    if edit[0] == "__init__.py":  # which no command survives
        served.signal(signal.SIGUSR2)
    else:
        outcome = json.loads(ask(served, b"upgrade").read_all())
        assert word in outcome["errors"][0]
    assert word in served.wait_for("server.upgrade_failed")["errors"][0]
    version = installed.publish()
    assert_untouched(served, before)
    until(lambda: descriptors_of(served.pid).items() <= held.items(), "no descriptor more")
    assert version in upgrade(served).out
    assert ANSWER.fullmatch(client.ask())


def test_the_command_tells_what_is_wrong_with_a_version(upgradable: Upgradable) -> None:
    """Its status is that of a failure, not that of a bad file."""
    served, installed = upgradable()
    installed.publish(
        ("master/process.py", "self.title = ProcessTitle()", "raise ValueError('so')")
    )
    assert_fails(served, 1, "not upgraded; the old version keeps serving", "ValueError: so")


def test_a_version_that_hangs_is_given_up(upgradable: Upgradable) -> None:
    """The old one has its limit, and the program that hangs is gone."""
    served, installed = upgradable(IMPATIENT)
    served.wait_for("server.listening")
    installed.publish(HANGING)
    assert_fails(served, 1, "the upgrade trial took longer than")
    until(lambda: not probe_of(served), "the end of the program")


def test_an_interpreter_that_is_gone_is_told(upgradable: Upgradable) -> None:
    """An exec that fails leaves the old version with all that it had."""
    served, installed = upgradable(handlers={"spare": 1})
    until(lambda: served.status()["handlers"]["idle"] == 1, "a spare")
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
    until(lambda: descriptors_of(served.pid).items() <= held.items(), "no descriptor more")
    assert served.handlers == spare
    assert served.served()
    assert served.status()["upgrades"] == 0
    served.signal(signal.SIGUSR1)
    served.wait_for("log.reopened")


# A file that cannot be applied


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
    """As by a reload, in the log and in the command's own words."""
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


def test_a_bad_file_has_its_status(upgradable: Upgradable) -> None:
    """The command fails as `check` and `reload` do."""
    served, _ = upgradable()
    served.configure(listen=[{"port": 0}, {"address": "unix:t.sock"}])
    assert_fails(served, 78, "restore them, run tetrad upgrade")
    served.configure(listen="nothing")
    assert served.tetrad("upgrade").status == 78


# What happens meanwhile


class Pausing:
    """An upgrade that stands still in the new version, before it has done anything."""

    def __init__(self, served: Daemon, installed: Installation) -> None:
        self._begun = os.path.join(served.folder, "begun")
        self._go = os.path.join(served.folder, "go")
        pause = (
            f"    open({self._begun!r}, 'w')\n"
            f"    while not os.path.exists({self._go!r}):\n        time.sleep(0.01)\n"
        )
        self.version = installed.publish(("master/process.py", "    gc.disable()\n", pause))
        self.outcome: list[bytes] = []
        client = ask(served, b"upgrade")
        self._asking = in_background(lambda: self.outcome.append(client.read_all()))
        until(lambda: os.path.exists(self._begun), "the new version")

    def go_on(self) -> dict[str, Any]:
        """Have it go on; return what came of it."""
        with open(self._go, "w", encoding="ascii"):
            pass
        self._asking.join()
        return dict(json.loads(self.outcome[0] or b"{}"))


def test_what_happens_while_the_version_changes_is_not_missed(upgradable: Upgradable) -> None:
    """One handler finishes, one is killed, one client comes: the new version hears of all."""
    served, installed = upgradable(limits={"clients": 3})
    served.allow_lost_handlers = True
    leaving, killed, staying = (served.served() for _ in range(3))
    pausing = Pausing(served, installed)
    assert leaving.quit() == b"quit"
    victim = served.watch(served._handler_of(killed.name))  # noqa: SLF001
    victim.signal(signal.SIGKILL)
    assert victim.has_ended()
    coming = [served.connect(), served.connect()]
    for client in coming:
        client.send(b"time")
    assert pausing.go_on()["version"] == pausing.version
    assert all(ANSWER.fullmatch(client.read(19)) for client in coming)
    assert ANSWER.fullmatch(staying.ask())
    assert served.wait_for("handler.lost")["client"] == killed.name
    assert served.connect().is_refused()
    assert served.status()["clients"]["now"] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_while_the_version_changes_is_obeyed(upgradable: Upgradable, number: int) -> None:
    """The signal waits for the new version, which ends the sessions of the old one."""
    served, installed = upgradable()
    client = served.served()
    pausing = Pausing(served, installed)
    served.signal(number)
    pausing.go_on()
    assert client.read_all() == b""
    assert served.is_gone()
    assert served.events()[-1]["event"] == "server.stopped"
    assert not os.path.exists(served.pidfile)


def test_a_reload_while_the_version_changes_is_obeyed(upgradable: Upgradable) -> None:
    """A file that was changed after the new version had read it is read again."""
    served, installed = upgradable()
    pausing = Pausing(served, installed)
    served.configure(limits={"clients": 7})
    served.signal(signal.SIGHUP)
    pausing.go_on()
    assert served.wait_for("server.reloaded")["changes"] == {"limits.clients": "1000 -> 7"}


def probe_of(served: Daemon) -> int:
    """Return the pid of the program that tries a version; 0 if there is none."""
    children = children_of(served.pid)
    return next((pid for pid in children if "tetrad.helpers.upgrade_trial" in title_of(pid)), 0)


class Trying:
    """An upgrade whose new version is being tried, until `end` is called."""

    def __init__(self, served: Daemon, installed: Installation) -> None:
        self._go = os.path.join(served.folder, "go")
        wait = f"import os, time\nwhile not os.path.exists({self._go!r}): time.sleep(0.01)\n"
        self.version = installed.publish(
            ("helpers/upgrade_checks.py", "import marshal\n", wait + "import marshal\n")
        )
        self.asking = ask(served, b"upgrade")
        self.probe = served.watch(until(lambda: probe_of(served), "the program that tries"))

    def let_go(self) -> None:
        """Let it come to its end."""
        with open(self._go, "w", encoding="ascii"):
            pass

    def end(self) -> dict[str, Any]:
        """Let it come to its end, and return what came of the upgrade."""
        self.let_go()
        return dict(json.loads(self.asking.read_all()))


@pytest.mark.parametrize(
    ("number", "event"), [(signal.SIGHUP, "server.reloaded"), (signal.SIGTERM, "server.stopped")]
)
def test_a_signal_that_comes_with_the_end_of_a_trial_is_obeyed(
    upgradable: Upgradable, number: int, event: str
) -> None:
    """By the old version or by the new one, whichever has its turn."""
    served, installed = upgradable()
    trying = Trying(served, installed)
    with stopped(served.pid):
        trying.let_go()
        assert trying.probe.has_ended()
        served.signal(number)
    served.wait_for(event)


NOTED = """
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


def test_signals_that_were_noted_are_not_lost_by_an_exec() -> None:
    """They are pending again, for whichever program lets them through."""
    ran = run([sys.executable, "-c", NOTED], dict(os.environ))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.split() == [f"{signal.SIGHUP:d}", f"{signal.SIGTERM:d}"]


def test_a_stop_ends_the_trial_of_a_version(upgradable: Upgradable) -> None:
    """A stop wins, and what was tried does not outlive it."""
    served, installed = upgradable()
    trying = Trying(served, installed)
    served.signal(signal.SIGTERM)
    assert served.is_gone()
    assert trying.probe.has_ended(2)
    assert json.loads(trying.asking.read_all())["errors"] == ["the daemon is stopping"]
    assert not served.events("server.upgraded")


def test_a_daemon_that_stops_is_not_upgraded(upgradable: Upgradable) -> None:
    """While sessions finish, a request is refused and a signal does nothing."""
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
    """Who asks meanwhile is told so; a signal is obeyed afterwards, by the new version."""
    served, installed = upgradable()
    trying = Trying(served, installed)
    second = json.loads(ask(served, b"upgrade").read_all())
    assert second["errors"] == ["an upgrade is in progress"]
    served.signal(signal.SIGUSR2)
    assert ANSWER.fullmatch(served.connect().ask())
    assert trying.end()["version"] == trying.version
    served.wait_for("server.upgraded", count=2)
    assert served.status()["upgrades"] == 2


def test_a_reload_waits_for_the_end_of_a_trial(upgradable: Upgradable) -> None:
    """By the command it is told that the upgrade does it; by the signal it comes after it."""
    served, installed = upgradable()
    trying = Trying(served, installed)
    reloading = ask(served, b"reload")
    served.configure(limits={"clients": 7})
    assert served.status()["clients"]["limit"] == 1000
    trying.end()
    assert "the daemon is being upgraded" in json.loads(reloading.read_all())["errors"][0]
    served.wait_for("server.reloaded")
    assert served.status()["clients"]["limit"] == 7


def test_a_reload_follows_an_upgrade_that_fails(upgradable: Upgradable) -> None:
    """What had to wait is done by the old version."""
    served, installed = upgradable(IMPATIENT)
    installed.publish(HANGING)
    asking = ask(served, b"upgrade")
    reloading = ask(served, b"reload")
    assert "took longer" in json.loads(asking.read_all())["errors"][0]
    assert "is installed" in json.loads(reloading.read_all())["errors"][0]


def test_who_has_asked_may_leave(upgradable: Upgradable) -> None:
    """An upgrade is not undone because nobody waits for its outcome."""
    served, installed = upgradable()
    trying = Trying(served, installed)
    trying.asking.close()
    trying.let_go()
    served.wait_for("server.upgraded")
    assert served.status()["version"] == trying.version


# What holds afterwards


def test_handlers_of_before_are_missed_when_they_are_lost(upgradable: Upgradable) -> None:
    """The new version keeps watch over the old one's handlers, and over its own logger."""
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


def test_limits_count_the_sessions_of_before(upgradable: Upgradable) -> None:
    """Clients, and clients of one source: counted on, and counted out when they leave."""
    served, installed = upgradable(limits={"clients": 3, "clients_per_source": 2})
    first, second = served.served(), served.served()
    other = served.served(source="127.0.0.2")
    installed.publish()
    upgrade(served)
    assert served.connect().is_refused()
    other.quit()
    until(lambda: served.status()["clients"]["now"] == 2, "room")
    assert served.connect().is_refused()
    assert served.status()["refused"] == dict(
        served.status()["refused"], clients=1, clients_per_source=1
    )
    first.quit()
    until(lambda: served.status()["clients"]["now"] == 1, "room")
    assert ANSWER.fullmatch(served.served().ask())
    assert ANSWER.fullmatch(second.ask())


def test_counters_go_on(upgradable: Upgradable) -> None:
    """What was accepted, refused, lost and logged is not forgotten, and numbers are not reused."""
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
    until(lambda: len(served.events("client.connected")) == len(clients), "the third")
    ids = sorted(line["connection"].split("-") for line in served.events("client.connected"))
    assert [serial for _, serial in ids] == ["1", "2", "4"]
    assert len({run_id for run_id, _ in ids}) == 1


@pytest.mark.parametrize("halfway", [False, True], ids=["idle", "in the middle of a command"])
def test_a_stop_ends_the_sessions_of_before(upgradable: Upgradable, halfway: bool) -> None:  # noqa: FBT001
    """Right after an upgrade, too, each session has what `stop_timeout` leaves it, and no more."""
    served, installed = upgradable(daemon={"stop_timeout": "300ms"})
    client = served.served()
    if halfway:
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


def test_a_master_that_dies_takes_all_along(upgradable: Upgradable) -> None:
    """Handlers of both versions hear it; the lock is gone, and the next start just works."""
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


def test_the_lock_stays_the_masters(upgradable: Upgradable) -> None:
    """A second start finds that the daemon runs."""
    served, installed = upgradable()
    installed.publish()
    upgrade(served)
    assert f"already running (pid {served.pid})" in served.tetrad("start").out


# However the daemon was started


def test_a_daemon_in_the_foreground_is_upgraded(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """The log goes on at the terminal, and Ctrl-C stops the new version."""
    installed = Installation(str(tmp_path))
    served = prepared(log={"file": None})
    served.environment |= installed.environment
    output = str(tmp_path / "output")
    served.settings["log"] = {"format": "console"}
    served.configure()
    process = served.run(output)

    def said(word: str) -> bool:
        with open(output, encoding="utf-8") as file:
            return word in file.read()

    until(lambda: said("server.listening"), "its start")
    version = installed.publish()
    assert f"-> {version} (pid {process.pid}" in upgrade(served).out
    until(lambda: said("server.upgraded"), "the log")
    served.signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert said("server.stopped")


def test_listeners_of_a_service_manager_are_kept(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """They are the manager's after an upgrade as before: a stop refuses nobody who waits."""
    installed = Installation(str(tmp_path))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port, fd = listening.getsockname()[1], listening.fileno()
        served = prepared(listen=[{"address": "127.0.0.1", "port": port}])
        served.environment |= installed.environment
        command = [sys.executable, "-c", _START_AS_SYSTEMD_DOES, f"{fd}", served.file]
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


def listen(manager: Manager, words: list[str]) -> None:
    """Take note of all that a manager hears, to the end."""
    while "STOPPING=1" not in words:
        words += manager.receive()


def test_a_service_manager_hears_of_an_upgrade(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """It is told when it begins, that it works again, and goes on to hear that it is alive."""
    installed = Installation(str(tmp_path))
    manager = Manager(str(tmp_path / "notify"))
    words: list[str] = []
    listening = in_background(lambda: listen(manager, words))
    served = prepared()
    served.environment |= installed.environment
    served.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    served.start()
    for change in ("upgrade", "reload", "upgrade"):
        words.clear()
        if change == "upgrade":
            installed.publish()
        assert served.tetrad(change).status == 0
        until(lambda: "READY=1" in words, "its readiness")
        assert "RELOADING=1" in words[: words.index("READY=1")]
        words.clear()
        until(lambda: "WATCHDOG=1" in words, "a sign of life")
    served.stop()
    listening.join()
    manager.close()


def test_who_waits_in_the_vestibule_waits_on(upgradable: Upgradable) -> None:
    """A header that is half said when the version changes is heard to its end."""
    served, installed = upgradable(listen=[{"port": 0, "proxy": {"trusted": ["127.0.0.0/8"]}}])
    client = served.connect()
    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.1")
    until(client.was_read, "the half of a header to be read")
    installed.publish()
    assert upgrade(served).status == 0
    client.send(b" 4711 65000\r\nquit")
    assert client.read_all() == b"quit"
    assert served.wait_for("client.disconnected")["client"] == "192.0.2.7:4711"
    assert served.status()["clients"]["now"] == 0
