"""Three tetrads behind HAProxy: which sessions fail when one tetrad fails, and why.

Until its connection to a tetrad is established, a session can be redispatched. After that only this
tetrad knows how far the session got.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.balancer import BACKEND
from tests.support.clients import ANSWER, Client
from tests.support.processes import stopped, until

if TYPE_CHECKING:
    from tests.support.balancer import Line
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure
    from tests.support.fleet_site import Site
    from tests.support.session_load import Load

FAILED = "two"
"""The tetrad under test."""

REDISPATCHED = "+"
"""The prefix of the number of retries of a session that was redispatched."""

MOST_AT_ONCE = 2
ROOM_FOR_OTHERS = 20
"""For checks, and for ended sessions whose exit notice the master has not read yet."""


SOME_CHECKS_SECONDS = 5.0
"""In this time every tetrad is checked at least twice."""


def is_answered(client: Client) -> bool:
    """Tell whether an open session is answered."""
    return bool(ANSWER.fullmatch(client.ask()))


def has_served(tetrad: Daemon, sessions: int = 20) -> bool:
    """Tell whether a tetrad has served so many sessions."""
    return len(tetrad.events("client.disconnected", reason="quit")) >= sessions


def lost(site: Site, load: Load, before: float) -> list[Line]:
    """Return the balancer's lines of failed sessions, none of which could be redispatched.

    Each had a connection to the failed tetrad, and came `before` the failure was known.
    """
    lines = site.log_lines_of(load.failures)
    assert {line["server"] for line in lines} <= {FAILED}
    assert all(line["connecting"] >= 0 for line in lines)
    assert all(outcome.since < before for outcome in load.failures)
    return lines


def redispatched(site: Site) -> list[Line]:
    """Return the lines of redispatched sessions."""
    lines = [line for line in site.balancer.sessions() if line["retries"][0] == REDISPATCHED]
    assert FAILED not in {line["server"] for line in lines}
    return lines


def test_sessions_are_distributed_and_appear_in_both_logs(site: Site) -> None:
    """Every tetrad gets sessions; both logs have the same client address and session id."""
    with site.load() as load:
        until(lambda: all(map(has_served, site.tetrads.values())), "sessions everywhere")
    assert load.failures == []
    site.check_logs()


def test_a_killed_tetrad_loses_only_its_own_sessions(site: Site, figure: Figure) -> None:
    """Sessions of the other tetrads and later ones are not affected."""
    held = {client: site.server_of(client) for client in [site.served() for _ in range(6)]}
    killed = site.tetrads[FAILED]
    killed.allow_lost_handlers = True
    with site.load() as load:
        killed.signal(signal.SIGKILL)
        assert killed.is_gone()
        dead = time.time()
        site.balancer.wait_for(FAILED, "DOWN")
        load.wait_for_sessions()
        site.start(FAILED)
        site.balancer.wait_for(FAILED, "UP")
        until(lambda: has_served(killed), "sessions of the restarted tetrad")
    assert all(client.is_refused() for client, server in held.items() if server == FAILED)
    assert all(is_answered(client) for client, server in held.items() if server != FAILED)
    moved = redispatched(site)
    assert moved
    figure(f"{len(lost(site, load, dead))} of {len(load.outcomes)} lost, {len(moved)} moved")
    site.check_logs()


def test_clients_of_a_suspended_tetrad_are_served_when_it_resumes(
    site: Site, figure: Figure
) -> None:
    """The kernel accepts their connections, so they stay; checks keep later clients away."""
    held = [site.served() for _ in range(6)]
    suspended = site.tetrads[FAILED]
    with site.load() as load:
        with stopped(suspended.pid):
            since = time.time()
            assert all(map(is_answered, held))
            site.balancer.wait_for(FAILED, "DOWN")
            down = time.time()
            load.wait_for_sessions()
            assert all(map(is_answered, held))
            waiting = site.balancer.sessions_of(FAILED) - {client.name for client in held}
            resumed = time.time()
        site.balancer.wait_for(FAILED, "UP")
        load.wait_for_sessions()
    assert load.failures == []
    assert waiting
    here = [line["since"] for line in site.balancer.sessions() if line["server"] == FAILED]
    assert not [start for start in here if down < start < resumed]
    figure(f"{len(waiting)} of {len(load.outcomes)} waited; detected after {down - since:.1f} s")
    site.check_logs()


def test_clients_of_a_suspended_tetrad_fail_when_it_is_killed(site: Site, figure: Figure) -> None:
    """Only the sessions in its backlog fail."""
    suspended = site.tetrads[FAILED]
    suspended.allow_lost_handlers = True
    with site.load() as load:
        with stopped(suspended.pid):
            site.balancer.wait_for(FAILED, "DOWN")
            down = time.time()
            load.wait_for_sessions()
            waiting = site.balancer.sessions_of(FAILED)
            assert waiting
            suspended.signal(signal.SIGKILL)
            assert suspended.is_gone()
        load.wait_for_sessions()
    assert {outcome.client for outcome in load.failures} == waiting
    figure(f"{len(lost(site, load, down))} of {len(load.outcomes)} lost")


def test_clients_are_redispatched_from_a_full_backlog(site: Site, figure: Figure) -> None:
    """A connection that the kernel does not accept is tried with another tetrad."""
    suspended = site.tetrads[FAILED]
    suspended.configure(listen=[{**suspended.settings["listen"][0], "backlog": 1}])
    assert suspended.tetrad("reload").status == 0
    with site.load(clients=12, pause_seconds=0) as load:
        with stopped(suspended.pid):
            site.balancer.wait_for(FAILED, "DOWN")
            load.wait_for_sessions()
        site.balancer.wait_for(FAILED, "UP")
    assert load.failures == []
    moved = redispatched(site)
    assert moved
    figure(f"{len(moved)} of {len(load.outcomes)} moved")


def test_a_rolling_restart_fails_no_session(site: Site, figure: Figure) -> None:
    """Each tetrad is drained, stopped after its last session, and started again."""
    with site.load() as load:
        for name, tetrad in site.tetrads.items():
            client = site.served_by(name)
            site.balancer.run(f"set server {BACKEND}/{name} state drain")
            load.wait_for_sessions()
            assert is_answered(client)
            assert client.quit() == b"quit"
            site.balancer.wait_until_empty(name)
            tetrad.stop()
            tetrad.configure(commands={"vers": {"close": "2"}})
            site.start(name)
            site.balancer.run(f"set server {BACKEND}/{name} state ready")
            site.balancer.wait_for(name, "UP")
            load.wait_for_sessions()
    assert load.failures == []
    assert redispatched(site) == []
    for tetrad in site.tetrads.values():
        tetrad.wait_for("server.started", count=2)
    figure(f"{len(load.outcomes)} sessions")
    site.check_logs()


def test_sessions_beyond_maxconn_wait_in_the_balancer(site: Site, figure: Figure) -> None:
    """If each tetrad allows a few more clients than the balancer, none is refused."""
    for name, tetrad in site.tetrads.items():
        tetrad.configure(limits={"clients": MOST_AT_ONCE + ROOM_FOR_OTHERS})
        assert tetrad.tetrad("reload").status == 0
        site.balancer.run(f"set maxconn server {BACKEND}/{name} {MOST_AT_ONCE}")
    until_when = time.monotonic() + SOME_CHECKS_SECONDS
    with site.load(clients=12, pause_seconds=0) as load:
        until(lambda: time.monotonic() > until_when, "two rounds of checks")
    assert load.failures == []
    assert not any(one.events("client.refused") for one in site.tetrads.values())
    assert "is DOWN" not in site.balancer.log()
    queued = [line for line in site.balancer.sessions() if line["queue"] or line["server_queue"]]
    assert queued
    figure(f"{len(queued)} of {len(load.outcomes)} waited")


@pytest.mark.long
def test_clients_of_an_unreachable_host_fail_or_are_redispatched(
    site: Site, figure: Figure
) -> None:
    """New clients are redispatched; connected ones fail within a minute."""
    held = {client: site.server_of(client) for client in [site.served() for _ in range(6)]}
    asking, silent = (client for client, server in held.items() if server == FAILED)
    with site.load() as load:
        site.unplug(FAILED)
        unplugged = time.time()
        asking.send(b"time")
        site.balancer.wait_for(FAILED, "DOWN")
        load.wait_for_sessions()
        assert asking.is_refused()
        assert silent.is_refused()
    assert time.time() - unplugged < 60
    assert all(is_answered(client) for client, server in held.items() if server != FAILED)
    lost(site, load, unplugged)
    assert redispatched(site)
    figure(
        f"failed after {time.time() - unplugged:.1f} s,"
        f" {len(load.failures)} of {len(load.outcomes)}"
    )
