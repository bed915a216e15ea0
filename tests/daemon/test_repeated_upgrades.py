"""Repeated upgrades under load: no session fails, and no log line or descriptor is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.log_accounting import Sessions, count_events
from tests.support.processes import descriptors_of, until
from tests.support.upgrades import (
    ECHO,
    upgrade,
)

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure
    from tests.support.upgrades import Edit, Upgradable


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


def test_five_upgrades_under_load(upgradable: Upgradable, figure: Figure) -> None:
    """No session fails, no log line is lost or incomplete, and no descriptor leaks."""
    upgrade_under_load(upgradable, 5, figure)


@pytest.mark.long
def test_twenty_upgrades_under_load(upgradable: Upgradable, figure: Figure) -> None:
    """The same with twenty upgrades."""
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
    """Idle handlers and reused handlers exit; spare handlers of the new version replace them.

    The new version also ends the handlers that the load needed and that are more than `spare`.
    """
    edits: tuple[Edit, ...] = (
        ("handler/services.py", "session.send(data)", "session.send(data[::-1])"),
        ("master/handler_pool.py", "SURPLUS_IDLE_SECONDS = 10.0", "SURPLUS_IDLE_SECONDS = 0.2"),
    )
    served, installed = upgradable(listen=ECHO, handlers={"spare": 2, "clients_each": 5})
    until(lambda: served.status()["handlers"]["idle"] == 2, "the spare handlers")
    old = [served.watch(pid) for pid in served.handlers]
    sessions = Sessions(served)
    with sessions.under_load(clients=2):
        for _ in range(3):
            installed.publish(*edits)
            upgrade(served)
    assert all(process.has_ended() for process in old)
    until(lambda: served.status()["handlers"]["idle"] == 2, "the spare handlers")
    assert served.connect(1).echo(b"abc") == b"cba"
