"""Deadlines longer than the kernel's longest single wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.clients import ANSWER

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

LONGEST = "3650d"

DEADLINES = ("first_command_timeout", "idle_timeout", "max_duration", "send_timeout")


def test_sessions_may_last_for_years(daemon: MakeDaemon) -> None:
    """With the longest configurable deadlines, clients are served and waited for."""
    served = daemon(session=dict.fromkeys(DEADLINES, LONGEST))
    silent = served.connect()
    served.wait_for("client.connected")
    client = served.served()
    for one in (client, silent, client):
        assert ANSWER.fullmatch(one.ask())
    assert [one.quit() for one in (client, silent)] == [b"quit", b"quit"]


def test_a_stop_waits_for_a_partial_command(daemon: MakeDaemon) -> None:
    """With the longest `stop_timeout`, a stop waits for the end of a partial command."""
    served = daemon(daemon={"stop_timeout": LONGEST})
    client = served.connect()
    client.send_and_wait(b"ti")
    served.signal(15)
    served.wait_for("server.stopping")
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.is_gone()


def test_tetrad_stop_returns_when_the_daemon_has_stopped(daemon: MakeDaemon) -> None:
    """With the longest `stop_timeout`, `tetrad stop` returns as soon as the daemon has exited."""
    served = daemon(daemon={"stop_timeout": LONGEST})
    client = served.served()
    ran = served.tetrad("stop")
    assert (ran.status, ran.out) == (0, f"tetrad: stopped (pid {served.pid})\n")
    assert client.is_refused()
    served.wait_for("client.disconnected", reason="stopping")
