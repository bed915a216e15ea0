"""Three tetrads behind HAProxy: which sessions are lost when one of them goes, and why.

A session can be placed elsewhere until its connection to a tetrad is made; from then on nobody but
that tetrad can know what has become of it.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER, Client
from fleet.balancer import BACKEND
from processes import stopped, until

if TYPE_CHECKING:
    from conftest import Figure
    from daemons import Daemon
    from fleet.balancer import Line
    from fleet.load import Load
    from fleet.site import Site

GONE = "two"
"""The tetrad that something is done to."""

REDISPATCHED = "+"
"""What the number of retries begins with if a session was placed at another tetrad."""

MOST_AT_ONCE = 2
ROOM_FOR_OTHERS = 20
"""For checks, and for sessions that have ended of which the master has not heard."""


SOME_CHECKS_SECONDS = 5.0
"""Within this time every tetrad is checked at least twice."""


def is_answered(client: Client) -> bool:
    """Tell whether a session that was open goes on."""
    return bool(ANSWER.fullmatch(client.ask()))


def has_served(tetrad: Daemon, sessions: int = 20) -> bool:
    """Tell whether a tetrad has had so many sessions."""
    return len(tetrad.events("client.disconnected", reason="quit")) >= sessions


def lost(site: Site, load: Load, before: float) -> list[Line]:
    """Return the sessions that failed, of which none could have been placed elsewhere.

    Each had its connection to the tetrad that is gone, and came `before` that was known.
    """
    lines = site.explain(load.failures)
    assert {line["server"] for line in lines} <= {GONE}
    assert all(line["connecting"] >= 0 for line in lines)
    assert all(outcome.since < before for outcome in load.failures)
    return lines


def redispatched(site: Site) -> list[Line]:
    """Return the sessions that were placed at another tetrad than first, after the load."""
    lines = [line for line in site.balancer.sessions() if line["retries"][0] == REDISPATCHED]
    assert GONE not in {line["server"] for line in lines}
    return lines


def test_sessions_are_shared_and_one_in_both_logs(site: Site) -> None:
    """Every tetrad gets some; both logs name the real client, and the session by the same name."""
    with site.load() as load:
        until(lambda: all(map(has_served, site.tetrads.values())), "sessions everywhere")
    assert load.failures == []
    site.check_logs()


def test_a_killed_tetrad_loses_the_sessions_that_it_has(site: Site, figure: Figure) -> None:
    """Nobody else notices: not those who are elsewhere, nor those who come once it is dead."""
    held = {client: site.home_of(client) for client in [site.served() for _ in range(6)]}
    killed = site.tetrads[GONE]
    killed.may_lose = True
    with site.load() as load:
        killed.signal(signal.SIGKILL)
        assert killed.is_gone()
        dead = time.time()
        site.balancer.wait_for(GONE, "DOWN")
        load.go_on()
        site.start(GONE)
        site.balancer.wait_for(GONE, "UP")
        until(lambda: has_served(killed), "sessions of the one that came back")
    assert all(client.is_refused() for client, home in held.items() if home == GONE)
    assert all(is_answered(client) for client, home in held.items() if home != GONE)
    moved = redispatched(site)
    assert moved
    figure(f"{len(lost(site, load, dead))} of {len(load.outcomes)} lost, {len(moved)} moved")
    site.check_logs()


def test_whoever_waits_for_a_frozen_tetrad_is_served_when_it_goes_on(
    site: Site, figure: Figure
) -> None:
    """The kernel makes their connections, so they cannot be moved; checks keep others away."""
    held = [site.served() for _ in range(6)]
    frozen = site.tetrads[GONE]
    with site.load() as load:
        with stopped(frozen.pid):
            since = time.time()
            assert all(map(is_answered, held))
            site.balancer.wait_for(GONE, "DOWN")
            down = time.time()
            load.go_on()
            assert all(map(is_answered, held))
            waiting = site.balancer.sessions_of(GONE) - {client.name for client in held}
            thawed = time.time()
        site.balancer.wait_for(GONE, "UP")
        load.go_on()
    assert load.failures == []
    assert waiting
    here = [line["since"] for line in site.balancer.sessions() if line["server"] == GONE]
    assert not [came for came in here if down < came < thawed]
    figure(f"{len(waiting)} of {len(load.outcomes)} waited; it took {down - since:.1f} s to notice")
    site.check_logs()


def test_whoever_waits_for_a_frozen_tetrad_hears_of_its_end(site: Site, figure: Figure) -> None:
    """What a supervisor ends is over for those in its backlog, and for nobody else."""
    frozen = site.tetrads[GONE]
    frozen.may_lose = True
    with site.load() as load:
        with stopped(frozen.pid):
            site.balancer.wait_for(GONE, "DOWN")
            down = time.time()
            load.go_on()
            waiting = site.balancer.sessions_of(GONE)
            assert waiting
            frozen.signal(signal.SIGKILL)
            assert frozen.is_gone()
        load.go_on()
    assert {outcome.client for outcome in load.failures} == waiting
    figure(f"{len(lost(site, load, down))} of {len(load.outcomes)} lost")


def test_whoever_finds_a_full_backlog_is_placed_elsewhere(site: Site, figure: Figure) -> None:
    """A connection that the kernel does not make is tried at another tetrad."""
    frozen = site.tetrads[GONE]
    frozen.configure(listen=[{**frozen.settings["listen"][0], "backlog": 1}])
    assert frozen.tetrad("reload").status == 0
    with site.load(clients=12) as load:
        with stopped(frozen.pid):
            site.balancer.wait_for(GONE, "DOWN")
            load.go_on()
        site.balancer.wait_for(GONE, "UP")
    assert load.failures == []
    moved = redispatched(site)
    assert moved
    figure(f"{len(moved)} of {len(load.outcomes)} moved")


def test_a_fleet_is_rolled_and_no_session_fails(site: Site, figure: Figure) -> None:
    """Each tetrad is drained, stopped when its last session has ended, and started anew."""
    with site.load() as load:
        for name, tetrad in site.tetrads.items():
            client = site.served_by(name)
            site.balancer.order(f"set server {BACKEND}/{name} state drain")
            load.go_on()
            assert is_answered(client)
            assert client.quit() == b"quit"
            site.balancer.wait_until_empty(name)
            tetrad.stop()
            tetrad.configure(commands={"vers": {"close": "2"}})
            site.start(name)
            site.balancer.order(f"set server {BACKEND}/{name} state ready")
            site.balancer.wait_for(name, "UP")
            load.go_on()
    assert load.failures == []
    assert redispatched(site) == []
    for tetrad in site.tetrads.values():
        tetrad.wait_for("server.started", count=2)
    figure(f"{len(load.outcomes)} sessions")
    site.check_logs()


def test_what_is_too_much_for_all_waits_at_the_balancer(site: Site, figure: Figure) -> None:
    """With a little more room than the balancer fills, nobody is refused, nor is a check."""
    for name, tetrad in site.tetrads.items():
        tetrad.configure(limits={"clients": MOST_AT_ONCE + ROOM_FOR_OTHERS})
        assert tetrad.tetrad("reload").status == 0
        site.balancer.order(f"set maxconn server {BACKEND}/{name} {MOST_AT_ONCE}")
    until_when = time.monotonic() + SOME_CHECKS_SECONDS
    with site.load(clients=12) as load:
        until(lambda: time.monotonic() > until_when, "the time of some checks")
    assert load.failures == []
    assert not any(one.events("client.refused") for one in site.tetrads.values())
    assert "is DOWN" not in site.balancer.log()
    queued = [line for line in site.balancer.sessions() if line["queue"] or line["server_queue"]]
    assert queued
    figure(f"{len(queued)} of {len(load.outcomes)} waited")


@pytest.mark.long
def test_a_machine_that_is_gone_keeps_nobody(site: Site, figure: Figure) -> None:
    """Who comes is placed elsewhere; who was there hears of it within half a minute."""
    held = {client: site.home_of(client) for client in [site.served() for _ in range(6)]}
    asking, silent = (client for client, home in held.items() if home == GONE)
    with site.load() as load:
        site.unplug(GONE)
        gone = time.time()
        asking.send(b"time")
        site.balancer.wait_for(GONE, "DOWN")
        load.go_on()
        assert asking.is_refused()
        assert silent.is_refused()
    assert time.time() - gone < 60
    assert all(is_answered(client) for client, home in held.items() if home != GONE)
    lost(site, load, gone)
    assert redispatched(site)
    figure(f"gone after {time.time() - gone:.1f} s, {len(load.failures)} of {len(load.outcomes)}")
