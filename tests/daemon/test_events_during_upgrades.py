"""Signals, requests and sessions that end during an upgrade take effect."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import run, stopped
from tests.support.upgrades import (
    HANGING_TRIAL,
    SHORT_TRIAL,
    PausedTrial,
    PausedUpgrade,
    ask,
)

if TYPE_CHECKING:
    from tests.support.upgrades import Upgradable


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
