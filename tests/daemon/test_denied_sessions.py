"""A reload denies clients that are connected: their sessions end, with a reason of their own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.commands import run_here

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

SOURCE = "127.0.0.2"


def deny(daemon: Daemon) -> None:
    """Reload with an access list that denies the source."""
    daemon.configure(access={"deny": [SOURCE]})
    assert run_here(daemon, "reload").status == 0


@pytest.mark.quick
@pytest.mark.parametrize("handlers", [{}, {"clients_each": 9}])
def test_the_reason_is_access(daemon: MakeDaemon, handlers: dict[str, int]) -> None:
    """Before the first command, after some, and in a command; it counts as rejected."""
    served = daemon(handlers=handlers)
    other = served.served()
    silent, idle, asking = (served.connect(source=SOURCE) for _ in range(3))
    assert ANSWER.fullmatch(idle.ask())
    asking.send_and_wait(b"ti")
    served.wait_for("client.connected", count=4)
    deny(served)
    asking.send(b"me")
    assert ANSWER.fullmatch(asking.read_all())
    for client in (silent, idle):
        assert client.read_all() == b""
    for client in (silent, idle, asking):
        ended = served.wait_for("client.disconnected", client=client.name)
        assert (ended["reason"], ended["level"]) == ("access", "warning")
    assert served.status()["rejected"] == {"access": 3, "tls": 0}
    assert ANSWER.fullmatch(other.ask())


def test_a_job_that_is_running_names_the_reason(daemon: MakeDaemon) -> None:
    """After `stop_timeout`, as at a stop."""
    served = daemon(daemon={"stop_timeout": "200ms"}, commands={"slow": {"run": ["sleep", "1000"]}})
    client = served.connect(source=SOURCE)
    client.send_and_wait(b"slow")
    deny(served)
    assert client.read_all() == b""
    assert served.wait_for("client.command")["error"] == "the session ended: access"
    assert served.wait_for("client.disconnected")["reason"] == "access"


def test_a_stop_after_a_denial_keeps_the_reason(daemon: MakeDaemon) -> None:
    """The first request to end counts."""
    served = daemon()
    client = served.connect(source=SOURCE)
    client.send_and_wait(b"ti")
    deny(served)
    served.signal(signal.SIGTERM)
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.is_gone()
    assert served.wait_for("client.disconnected")["reason"] == "access"
