"""Who is let in: limits, rates and access lists, and what the log says of the others."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from clients import ANSWER
from processes import until

if TYPE_CHECKING:
    from conftest import MakeDaemon
    from daemons import Daemon

DUAL_STACK = [{"address": "::", "port": 0}]


def is_let_in(daemon: Daemon, source: str = "", host: str = "127.0.0.1") -> bool:
    """Tell whether a client from an address is served; one that is leaves again."""
    client = daemon.connect(source=source, host=host)
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


def test_no_more_clients_than_allowed(daemon: MakeDaemon) -> None:
    """One client more than `limits.clients` is closed at once and logged."""
    served = daemon(limits={"clients": 2})
    clients = [served.served(), served.served()]
    refused = served.connect()
    assert refused.is_refused()
    line = served.wait_for("client.refused")
    assert (line["reason"], line["client"], line["level"]) == ("clients", refused.name, "warning")
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)


def test_who_leaves_makes_room(daemon: MakeDaemon) -> None:
    """The place of a client that has left is free."""
    served = daemon(limits={"clients": 1})
    for _ in range(3):
        assert served.served().quit() == b"quit"
        until(lambda: served.status()["clients"]["now"] == 0, "room")


def test_clients_are_counted_over_all_listeners(daemon: MakeDaemon) -> None:
    """`limits.clients` is for the daemon, not for each listener."""
    served = daemon(limits={"clients": 1}, listen=[{"port": 0}, {"port": 0}])
    served.served(0)
    assert served.connect(1).is_refused()
    assert served.wait_for("client.refused")["reason"] == "clients"


def test_no_more_clients_of_one_source_than_allowed(daemon: MakeDaemon) -> None:
    """`clients_per_source` counts each address by itself."""
    served = daemon(limits={"clients_per_source": 1})
    served.served(source="127.0.0.2")
    assert not is_let_in(served, "127.0.0.2")
    assert is_let_in(served, "127.0.0.3")
    assert served.wait_for("client.refused")["reason"] == "clients_per_source"


def test_an_ipv6_source_is_limited_too(daemon: MakeDaemon) -> None:
    """A dual-stack listener counts IPv6 and IPv4 sources apart."""
    served = daemon(limits={"clients_per_source": 1}, listen=DUAL_STACK)
    held = served.connect(host="::1")
    assert ANSWER.fullmatch(held.ask())
    assert not is_let_in(served, host="::1")
    assert is_let_in(served, host="127.0.0.1")


def test_a_source_may_not_come_too_fast(daemon: MakeDaemon) -> None:
    """`rate_per_source` lets so many new sessions of an address in, and then none."""
    served = daemon(limits={"rate_per_source": "2/h"})
    answers = [is_let_in(served, "127.0.0.2") for _ in range(3)]
    assert answers == [True, True, False]
    assert is_let_in(served, "127.0.0.3")
    assert served.wait_for("client.refused")["reason"] == "rate"


def test_limits_per_source_are_not_for_unix_sockets(daemon: MakeDaemon) -> None:
    """Clients of a Unix socket come from nowhere, so they have no share of a source."""
    limits = {"clients_per_source": 1, "rate_per_source": "1/h"}
    served = daemon(limits=limits, listen=[{"address": "unix:tetrad.sock"}])
    clients = [served.connect_to_path("tetrad.sock") for _ in range(3)]
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)


def test_who_is_allowed_is_let_in_and_nobody_else(daemon: MakeDaemon) -> None:
    """Where something is allowed, everything else is not."""
    served = daemon(access={"allow": ["127.0.0.2"]})
    assert is_let_in(served, "127.0.0.2")
    assert not is_let_in(served, "127.0.0.1")
    assert served.wait_for("client.refused")["reason"] == "access"


def test_who_is_denied_is_kept_out_and_nobody_else(daemon: MakeDaemon) -> None:
    """Where something is denied only, everything else is let in."""
    served = daemon(access={"deny": ["127.0.0.2/31"]})
    answers = [is_let_in(served, f"127.0.0.{last}") for last in (1, 2, 3, 4)]
    assert answers == [True, False, False, True]


def test_the_most_specific_network_decides(daemon: MakeDaemon) -> None:
    """The longest match of the two lists wins."""
    access = {"deny": ["127.0.0.0/8", "127.0.0.3"], "allow": ["127.0.0.0/24", "127.1.0.0/16"]}
    served = daemon(access=access)
    sources = ["127.0.0.1", "127.0.0.3", "127.1.2.3", "127.2.0.1"]
    assert [is_let_in(served, source) for source in sources] == [True, False, True, False]


def test_on_a_tie_access_is_denied(daemon: MakeDaemon) -> None:
    """The same network in both lists is denied."""
    both = ["127.0.0.0/8"]
    assert not is_let_in(daemon(access={"allow": both, "deny": both}))


def test_ipv4_networks_are_for_ipv4_clients_of_dual_stack_listeners(daemon: MakeDaemon) -> None:
    """A client that came by IPv4 is an IPv4 client, wherever it arrived."""
    served = daemon(access={"deny": ["127.0.0.1"]}, listen=DUAL_STACK)
    assert not is_let_in(served, host="127.0.0.1")
    assert is_let_in(served, host="::1")


def test_the_access_lists_come_before_the_limits(daemon: MakeDaemon) -> None:
    """Who must not come in is told apart from who found no room."""
    served = daemon(access={"deny": ["127.0.0.2"]}, limits={"clients": 1})
    served.served()
    assert not is_let_in(served, "127.0.0.2")
    assert served.wait_for("client.refused")["reason"] == "access"


@pytest.mark.parametrize("count", [5, 60])
def test_every_refusal_is_shown_or_counted(daemon: MakeDaemon, count: int) -> None:
    """Lines of refusals are limited; those without one are in a `suppressed` count."""
    served = daemon(access={"deny": ["127.0.0.1"]})
    clients = [served.connect() for _ in range(count)]
    assert all(client.is_refused() for client in clients)
    assert served.status()["refused"]["access"] == count
    served.stop()
    lines = served.events("client.refused", reason="access")
    shown = [line for line in lines if "client" in line]
    assert len(shown) + sum(line.get("suppressed", 0) for line in lines) == count
    assert len(shown) <= max(count // 2, 5)


def test_a_refused_client_has_its_place_in_the_log(daemon: MakeDaemon) -> None:
    """A refusal tells who it was, where, and has a connection of its own."""
    served = daemon(access={"deny": ["127.0.0.1"]})
    client = served.connect()
    assert client.is_refused()
    line = served.wait_for("client.refused")
    assert line["client"] == client.name
    assert line["listener"] == f"127.0.0.1:{served.port}"
    assert line["service"] == "command"
    assert line["connection"]
    assert served.events(connection=line["connection"]) == [line]


def test_a_daemon_that_stops_refuses_newcomers(daemon: MakeDaemon) -> None:
    """While sessions finish, nobody else is let in."""
    served = daemon()
    busy = served.served()
    busy.say(b"ti")
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    with pytest.raises(ConnectionError):
        served.connect().send(b"time")
    busy.send(b"me")
    assert ANSWER.fullmatch(busy.read_all())
