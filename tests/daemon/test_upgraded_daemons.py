"""After an upgrade, limits, counters, stops and kills include what the old version began."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import until
from tests.support.upgrades import (
    upgrade,
)

if TYPE_CHECKING:
    from tests.support.upgrades import Upgradable


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
    ran = served.tetrad("start")
    assert "started" in ran.out
    served.adopt(ran.out)


def test_the_master_keeps_the_lock_of_the_pidfile(upgradable: Upgradable) -> None:
    """A second start reports the running daemon."""
    served, installed = upgradable()
    installed.publish()
    upgrade(served)
    assert f"already running (pid {served.pid})" in served.tetrad("start").out
