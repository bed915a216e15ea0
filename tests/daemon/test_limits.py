"""Limits, rates and access lists with real clients, and the log lines of refusals."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import until

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

LISTEN = [{"port": 0}, {"address": "::", "port": 0}]
DUAL_STACK = 1
"""The index of a listener in LISTEN."""

TWO_CLIENTS: dict[str, Any] = {
    "limits": {"clients": 2},
    "listen": LISTEN,
    "access": {"deny": ["127.0.0.2"]},
}
ONE_PER_SOURCE: dict[str, Any] = {"limits": {"clients_per_source": 1}, "listen": LISTEN}
DENY: dict[str, Any] = {"access": {"deny": ["127.0.0.2/31", "127.0.0.9"]}, "listen": LISTEN}
BOTH: dict[str, Any] = {
    "access": {
        "deny": ["127.0.0.0/8", "127.0.0.3", "127.9.0.0/16"],
        "allow": ["127.0.0.0/24", "127.1.0.0/16", "127.9.0.0/16"],
    }
}


def is_served(daemon: Daemon, source: str = "", host: str = "127.0.0.1", listener: int = 0) -> bool:
    """Tell whether a client from an address is served."""
    client = daemon.connect(listener, source=source, host=host)
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


@pytest.mark.quick
def test_clients_beyond_the_limit_are_closed(shared_daemon: MakeDaemon) -> None:
    """One client more than `limits.clients` is closed at once and logged."""
    served = shared_daemon(**TWO_CLIENTS)
    clients = [served.served(), served.served()]
    refused = served.connect()
    assert refused.is_refused()
    line = served.wait_for("client.refused")
    assert (line["reason"], line["client"], line["level"]) == ("clients", refused.name, "warning")
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)


def test_the_slot_of_a_disconnected_client_is_free(shared_daemon: MakeDaemon) -> None:
    """Another client is admitted after a disconnect."""
    served = shared_daemon(**TWO_CLIENTS)
    served.served()
    for _ in range(3):
        assert served.served().quit() == b"quit"
        until(lambda: served.status()["clients"]["now"] == 1, "a free slot")


def test_clients_are_counted_over_all_listeners(shared_daemon: MakeDaemon) -> None:
    """`limits.clients` applies to the daemon, not to a listener."""
    served = shared_daemon(**TWO_CLIENTS)
    served.served(0)
    served.served(1)
    assert served.connect(0).is_refused()
    assert served.wait_for("client.refused")["reason"] == "clients"


@pytest.mark.quick
def test_clients_per_source_are_limited(shared_daemon: MakeDaemon) -> None:
    """`clients_per_source` counts each address separately."""
    served = shared_daemon(**ONE_PER_SOURCE)
    served.served(source="127.0.0.2")
    assert not is_served(served, "127.0.0.2")
    assert is_served(served, "127.0.0.3")
    assert served.wait_for("client.refused")["reason"] == "clients_per_source"


def test_an_ipv6_source_is_limited_too(shared_daemon: MakeDaemon) -> None:
    """A dual-stack listener counts IPv6 and IPv4 sources separately."""
    served = shared_daemon(**ONE_PER_SOURCE)
    held = served.connect(DUAL_STACK, host="::1")
    assert ANSWER.fullmatch(held.ask())
    assert not is_served(served, host="::1", listener=DUAL_STACK)
    assert is_served(served, host="127.0.0.1", listener=DUAL_STACK)


@pytest.mark.quick
def test_the_rate_of_a_source_is_limited(daemon: MakeDaemon) -> None:
    """`rate_per_source` admits this many sessions of an address."""
    served = daemon(limits={"rate_per_source": "2/h"})
    answers = [is_served(served, "127.0.0.2") for _ in range(3)]
    assert answers == [True, True, False]
    assert is_served(served, "127.0.0.3")
    assert served.wait_for("client.refused")["reason"] == "rate"


def test_limits_per_source_do_not_apply_to_unix_sockets(daemon: MakeDaemon) -> None:
    """Clients of a Unix socket have no address."""
    limits = {"clients_per_source": 1, "rate_per_source": "1/h"}
    served = daemon(limits=limits, listen=[{"address": "unix:tetrad.sock"}])
    clients = [served.connect_to_path("tetrad.sock") for _ in range(3)]
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)


def test_with_allow_only_listed_addresses_are_admitted(daemon: MakeDaemon) -> None:
    """All other addresses are refused."""
    served = daemon(access={"allow": ["127.0.0.2"]})
    assert is_served(served, "127.0.0.2")
    assert not is_served(served, "127.0.0.1")
    assert served.wait_for("client.refused")["reason"] == "access"


def test_with_deny_only_listed_addresses_are_refused(shared_daemon: MakeDaemon) -> None:
    """All other addresses are admitted."""
    served = shared_daemon(**DENY)
    answers = [is_served(served, f"127.0.0.{last}") for last in (1, 2, 3, 4)]
    assert answers == [True, False, False, True]


@pytest.mark.quick
def test_the_most_specific_network_decides(shared_daemon: MakeDaemon) -> None:
    """The longest match of the two lists wins."""
    served = shared_daemon(**BOTH)
    sources = ["127.0.0.1", "127.0.0.3", "127.1.2.3", "127.2.0.1"]
    assert [is_served(served, source) for source in sources] == [True, False, True, False]


def test_on_a_tie_access_is_denied(shared_daemon: MakeDaemon) -> None:
    """A network in both lists is denied."""
    served = shared_daemon(**BOTH)
    assert not is_served(served, "127.9.0.1")
    assert served.wait_for("client.refused")["reason"] == "access"


def test_ipv4_networks_apply_to_ipv4_clients_of_dual_stack_listeners(
    shared_daemon: MakeDaemon,
) -> None:
    """An IPv4 client is one on every listener."""
    served = shared_daemon(**DENY)
    assert not is_served(served, "127.0.0.9", listener=DUAL_STACK)
    assert is_served(served, "127.0.0.1", listener=DUAL_STACK)
    assert is_served(served, host="::1", listener=DUAL_STACK)


def test_access_is_checked_before_limits(shared_daemon: MakeDaemon) -> None:
    """A denied client is refused for `access`, not for a limit."""
    served = shared_daemon(**TWO_CLIENTS)
    served.served()
    served.served()
    assert not is_served(served, "127.0.0.2")
    assert served.wait_for("client.refused")["reason"] == "access"


@pytest.mark.parametrize("count", [5, 60])
def test_every_refusal_is_shown_or_counted(daemon: MakeDaemon, count: int) -> None:
    """Lines of refusals are limited; the others are in a `suppressed` count."""
    served = daemon(access={"deny": ["127.0.0.1"]})
    clients = [served.connect() for _ in range(count)]
    assert all(client.is_refused() for client in clients)
    assert served.status()["refused"]["access"] == count
    served.stop()
    lines = served.events("client.refused", reason="access")
    shown = [line for line in lines if "client" in line]
    assert len(shown) + sum(line.get("suppressed", 0) for line in lines) == count
    assert len(shown) <= max(count // 2, 5)


def test_a_refusal_has_client_listener_and_connection(shared_daemon: MakeDaemon) -> None:
    """A refused client has a connection id of its own."""
    served = shared_daemon(**DENY)
    client = served.connect(source="127.0.0.9")
    assert client.is_refused()
    line = served.wait_for("client.refused")
    assert line["client"] == client.name
    assert line["listener"] == f"127.0.0.1:{served.port}"
    assert line["service"] == "command"
    assert line["connection"]
    assert served.events(connection=line["connection"]) == [line]


def test_a_stopping_daemon_refuses_new_clients(daemon: MakeDaemon) -> None:
    """Open sessions are finished."""
    served = daemon()
    busy = served.served()
    busy.send_and_wait(b"ti")
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    with pytest.raises(ConnectionError):
        served.connect().send(b"time")
    busy.send(b"me")
    assert ANSWER.fullmatch(busy.read_all())
