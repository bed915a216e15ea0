"""Deadlines that are so far away that the kernel cannot wait for them in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clients import ANSWER

if TYPE_CHECKING:
    from conftest import MakeDaemon

LONGEST = "3650d"

DEADLINES = ("first_command_timeout", "idle_timeout", "max_duration", "send_timeout")


def test_sessions_may_last_for_years(daemon: MakeDaemon) -> None:
    """With the longest deadlines that the file may have, clients are served and waited for."""
    served = daemon(session=dict.fromkeys(DEADLINES, LONGEST))
    silent = served.connect()
    served.wait_for("client.connected")
    client = served.served()
    for one in (client, silent, client):
        assert ANSWER.fullmatch(one.ask())
    assert [one.quit() for one in (client, silent)] == [b"quit", b"quit"]


def test_a_stop_may_take_years(daemon: MakeDaemon) -> None:
    """With the longest time to finish in, a stop waits for who is in the middle of a command."""
    served = daemon(daemon={"stop_timeout": LONGEST})
    client = served.connect()
    client.say(b"ti")
    served.signal(15)
    served.wait_for("server.stopping")
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.is_gone()


def test_a_stop_that_may_take_years_need_not(daemon: MakeDaemon) -> None:
    """`tetrad stop` can wait for years, and returns when the daemon is gone."""
    served = daemon(daemon={"stop_timeout": LONGEST})
    client = served.served()
    ran = served.tetrad("stop")
    assert (ran.status, ran.out) == (0, f"tetrad: stopped (pid {served.pid})\n")
    assert client.is_refused()
    served.wait_for("client.disconnected", reason="stopping")
