"""SIGTERM to one handler ends its session, and the log distinguishes that from a stop."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon


@pytest.mark.parametrize("sent", [b"", b"time", b"help"])
def test_the_reason_is_terminated(daemon: MakeDaemon, sent: bytes) -> None:
    """Before the first command and after some; other sessions continue."""
    served = daemon()
    other = served.served()
    known = set(served.handlers)
    client = served.connect()
    client.send_and_wait(sent)
    served.wait_for("client.connected", client=client.name)
    (handler,) = set(served.handlers) - known
    os.kill(handler, signal.SIGTERM)
    client.read_all()
    ended = served.wait_for("client.disconnected", client=client.name)
    assert (ended["reason"], ended["level"], ended["pid"]) == ("terminated", "info", handler)
    assert ANSWER.fullmatch(other.ask())
    assert not served.events("handler.lost")


def test_a_command_that_has_begun_may_finish(daemon: MakeDaemon) -> None:
    """The client gets its answer first."""
    served = daemon()
    client = served.connect()
    client.send_and_wait(b"ti")
    os.kill(served.handlers[0], signal.SIGTERM)
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.wait_for("client.disconnected")["reason"] == "terminated"


def test_a_command_that_does_not_finish_is_cut_off(daemon: MakeDaemon) -> None:
    """After `stop_timeout`, with the same reason."""
    served = daemon(daemon={"stop_timeout": "200ms"})
    client = served.connect()
    client.send_and_wait(b"ti")
    os.kill(served.handlers[0], signal.SIGTERM)
    assert client.read_all() == b""
    assert served.wait_for("client.disconnected")["reason"] == "terminated"


def test_a_job_that_is_running_names_the_reason(daemon: MakeDaemon) -> None:
    """`daemon.stop_timeout` is over before the job."""
    served = daemon(daemon={"stop_timeout": "200ms"}, commands={"slow": {"run": ["sleep", "1000"]}})
    client = served.connect()
    client.send_and_wait(b"slow")
    os.kill(served.handlers[0], signal.SIGTERM)
    assert client.read_all() == b""
    assert served.wait_for("client.command")["error"] == "the session ended: terminated"
    assert served.wait_for("client.disconnected")["reason"] == "terminated"


@pytest.mark.parametrize("handlers", [{}, {"spare": 1}, {"clients_each": 9}])
def test_a_stop_of_the_daemon_has_its_own_reason(
    daemon: MakeDaemon, handlers: dict[str, int]
) -> None:
    """SIGTERM to the master, whose handlers inherit what it has noted."""
    served = daemon(handlers=handlers)
    served.served()
    served.stop()
    assert served.wait_for("client.disconnected")["reason"] == "stopping"
