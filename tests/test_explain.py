"""`tetrad explain` names the rule and the limits for an address, and a real client meets them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from daemons import until

if TYPE_CHECKING:
    from conftest import MakeDaemon
    from daemons import Daemon, Ran

FREE = "  ok  no daemon runs, so no limit is near"


def rule(daemon: Daemon, address: str) -> str:
    """Return the line about access rules, without the folder of the file."""
    lines = daemon.tetrad("explain", address).out.splitlines()
    return lines[1].replace(f"{daemon.file}:", "line ")


def is_admitted(daemon: Daemon, source: str, host: str = "127.0.0.1") -> bool:
    """Tell whether a real client is admitted."""
    client = daemon.connect(source=source, host=host)
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


def would_be_admitted(daemon: Daemon, address: str) -> bool:
    """Tell whether a client would be admitted; exit status and first line must agree."""
    ran = daemon.tetrad("explain", address)
    assert ran.err == ""
    word = {0: "let in", 1: "refused"}[ran.status]
    assert ran.out.splitlines()[0].endswith(f": {word}")
    return ran.status == 0


def findings(ran: Ran, topic: str) -> str:
    """Return the line about a topic."""
    return next(line for line in ran.out.splitlines() if line[6:].startswith(topic))


def test_the_rule_and_its_line_are_named(prepared: MakeDaemon) -> None:
    """The first line is the result, the second one the rule with its line in the file."""
    daemon = prepared(access={"allow": ["127.0.0.0/8"], "deny": ["127.0.0.2"]})
    with open(daemon.file, encoding="utf-8") as file:
        line = 1 + file.read().splitlines().index("  - 127.0.0.2")
    ran = daemon.tetrad("explain", "127.0.0.2")
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.splitlines() == [
        "127.0.0.2: refused",
        f"  NO  access: denied by 127.0.0.2/32 (access.deny[0], {daemon.file}:{line})",
        FREE,
    ]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", "  ok  access: allowed by 10.1.2.0/24 (access.allow[1], line 4)"),
        ("10.1.9.9", "  NO  access: denied by 10.1.0.0/16 (access.deny[0], line 8)"),
        ("10.9.9.9", "  ok  access: allowed by 10.0.0.0/8 (access.allow[0], line 3)"),
        ("192.0.2.7", "  NO  access: denied by 192.0.2.0/24 (access.deny[1], line 9)"),
        (
            "203.0.113.1",
            "  NO  access: none of the networks of access.allow (access.allow, line 2)",
        ),
        ("2001:db8::1", "  ok  access: allowed by 2001:db8::/32 (access.allow[3], line 6)"),
        ("2001:db8::bad", "  NO  access: denied by 2001:db8::bad/128 (access.deny[2], line 10)"),
        ("::1", "  NO  access: none of the networks of access.allow (access.allow, line 2)"),
        ("::ffff:10.1.2.3", "  ok  access: allowed by 10.1.2.0/24 (access.allow[1], line 4)"),
        ("::ffff:a01:909", "  NO  access: denied by 10.1.0.0/16 (access.deny[0], line 8)"),
    ],
)
def test_the_most_specific_rule_wins(prepared: MakeDaemon, address: str, expected: str) -> None:
    """The longest prefix of both lists, deny on a tie; mapped addresses are IPv4."""
    allow = ["10.0.0.0/8", "10.1.2.0/24", "192.0.2.0/24", "2001:db8::/32"]
    deny = ["10.1.0.0/16", "192.0.2.0/24", "2001:db8::bad"]
    assert rule(prepared(access={"allow": allow, "deny": deny}), address) == expected


def test_without_rules_every_address_is_admitted(prepared: MakeDaemon) -> None:
    """The output says that no rule applies."""
    daemon = prepared()
    assert would_be_admitted(daemon, "203.0.113.1")
    assert rule(daemon, "203.0.113.1").startswith("  ok  access: no rule names it")


def test_with_deny_alone_other_addresses_are_admitted(prepared: MakeDaemon) -> None:
    """An empty `allow` admits every address."""
    daemon = prepared(access={"deny": ["192.0.2.0/24"]})
    assert would_be_admitted(daemon, "203.0.113.1")
    assert not would_be_admitted(daemon, "192.0.2.1")


@pytest.mark.parametrize("address", ["", "x", "127.1", "192.0.2.0/24", "010.0.0.1", "unix:/x"])
def test_an_invalid_address_is_a_usage_error(prepared: MakeDaemon, address: str) -> None:
    """Names, networks and short forms are not accepted."""
    ran = prepared().tetrad("explain", address)
    assert (ran.status, ran.out) == (2, "")
    assert "expected an IPv4 or IPv6 address" in ran.err


def test_an_invalid_file_is_an_error(prepared: MakeDaemon) -> None:
    """No daemon would use this file, so nothing is explained."""
    daemon = prepared(limits={"clients": "many"})
    ran = daemon.tetrad("explain", "127.0.0.1")
    assert (ran.status, ran.out) == (78, "")
    assert "limits.clients: " in ran.err


def test_a_real_client_gets_the_explained_result(daemon: MakeDaemon) -> None:
    """Rules of all lengths, ties, and addresses without a rule."""
    allow = ["127.0.0.0/28", "127.0.0.3", "127.0.0.4/31", "127.0.0.6"]
    deny = ["127.0.0.2", "127.0.0.5", "127.0.0.6", "127.0.0.0/29"]
    served = daemon(access={"allow": allow, "deny": deny})
    for number in (*range(2, 9), 16):
        host = f"127.0.0.{number}"
        assert (
            would_be_admitted(served, host) == is_admitted(served, host) == (number in {3, 4, 8})
        ), host


def test_a_real_ipv6_client_gets_the_explained_result(daemon: MakeDaemon) -> None:
    """With a dual-stack listener, rules of both families apply."""
    served = daemon(
        access={"allow": ["::1"], "deny": ["127.0.0.9"]}, listen=[{"address": "::", "port": 0}]
    )
    assert would_be_admitted(served, "::1")
    assert is_admitted(served, "::1", "::1")
    assert not would_be_admitted(served, "127.0.0.1")
    assert not is_admitted(served, "127.0.0.1")


@pytest.mark.parametrize(
    ("limits", "topic", "expected"),
    [
        ({"clients": 2}, "clients:", "clients: {} of 2 are in (limits.clients, {}"),
        (
            {"clients_per_source": 2},
            "clients from",
            "clients from this source: {} of 2 (limits.clients_per_source, {}",
        ),
    ],
)
def test_counts_and_limits_are_shown(
    daemon: MakeDaemon, limits: dict[str, Any], topic: str, expected: str
) -> None:
    """At the limit, the address would be refused."""
    served = daemon(limits=limits)
    for count in range(2):
        ran = served.tetrad("explain", "127.0.0.1")
        assert ran.status == 0
        assert findings(ran, topic).startswith("  ok  " + expected.format(count, served.file))
        served.served()
    ran = served.tetrad("explain", "127.0.0.1")
    assert ran.status == 1
    assert findings(ran, topic).startswith("  NO  " + expected.format(2, served.file))
    assert served.connect().is_refused()


def test_limits_per_source_are_explained_for_that_source(daemon: MakeDaemon) -> None:
    """Clients of one source do not count for another."""
    served = daemon(limits={"clients_per_source": 1})
    served.served(source="127.0.0.2")
    assert not would_be_admitted(served, "127.0.0.2")
    assert would_be_admitted(served, "127.0.0.3")


def test_the_wait_for_the_rate_is_shown(daemon: MakeDaemon) -> None:
    """A source beyond its rate gets the seconds until the next admission."""
    served = daemon(limits={"rate_per_source": "2/h"})
    ran = served.tetrad("explain", "127.0.0.1")
    assert "rate from this source: 2 in 1h, one more may come (limits.rate_per_source, " in ran.out
    for _ in range(2):
        served.served()
    ran = served.tetrad("explain", "127.0.0.1")
    line = findings(ran, "rate from this source: 2 in 1h, the next may come in ")
    assert (ran.status, line[:4]) == (1, "  NO")
    assert 1700 < float(line.split(" s (")[0].rpartition(" ")[2]) <= 1800
    assert served.connect().is_refused()
    assert would_be_admitted(served, "127.0.0.2")


def test_mapped_networks_apply_to_ipv4(daemon: MakeDaemon) -> None:
    """A rule may have the form in which dual-stack sockets show IPv4 clients."""
    served = daemon(access={"allow": ["::ffff:127.0.0.0/127"]})
    assert would_be_admitted(served, "127.0.0.1") is is_admitted(served, "127.0.0.1") is True
    assert would_be_admitted(served, "127.0.0.2") is is_admitted(served, "127.0.0.2") is False


def test_explain_consumes_nothing(daemon: MakeDaemon) -> None:
    """After any number of queries the one session of the rate is still available."""
    served = daemon(limits={"rate_per_source": "1/h", "clients": 1})
    assert all(would_be_admitted(served, "127.0.0.1") for _ in range(3))
    assert served.status()["clients"]["peak"] == 0
    assert is_admitted(served, "127.0.0.1")


def test_default_limits_are_shown_as_such(daemon: MakeDaemon) -> None:
    """Without limits in the file, only the number of clients is limited."""
    lines = daemon().tetrad("explain", "127.0.0.1").out.splitlines()
    assert lines[2:] == ["  ok  clients: 0 of 1000 are in (limits.clients, by default)"]


@pytest.mark.parametrize(("before", "after"), [(["127.0.0.2"], []), ([], ["127.0.0.2"])])
def test_a_running_daemons_rules_apply(
    daemon: MakeDaemon, before: list[str], after: list[str]
) -> None:
    """Until a reload they decide, and a different file is mentioned."""
    served = daemon(access={"deny": before})
    served.configure(access={"deny": after})
    assert (
        would_be_admitted(served, "127.0.0.2") == is_admitted(served, "127.0.0.2") == (not before)
    )
    assert "but the daemon, not reloaded since" in rule(served, "127.0.0.2")
    assert served.tetrad("reload").status == 0
    assert would_be_admitted(served, "127.0.0.2") == is_admitted(served, "127.0.0.2") == (not after)
    assert "daemon" not in rule(served, "127.0.0.2")


def test_a_running_daemons_rate_applies(daemon: MakeDaemon) -> None:
    """A limit removed from the file applies until the reload."""
    served = daemon(limits={"rate_per_source": "1/h"})
    served.served()
    served.configure(limits={"rate_per_source": None})
    assert not would_be_admitted(served, "127.0.0.1")
    assert not is_admitted(served, "127.0.0.1")
    assert served.tetrad("reload").status == 0
    assert would_be_admitted(served, "127.0.0.1")
    assert is_admitted(served, "127.0.0.1")


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::ffff:7f00:1"])
def test_a_mapped_address_is_explained_as_ipv4(daemon: MakeDaemon, address: str) -> None:
    """Rules and limits are those of the IPv4 client."""
    served = daemon(access={"allow": ["127.0.0.1"]}, limits={"clients_per_source": 1})
    assert would_be_admitted(served, address)
    served.served()
    ran = served.tetrad("explain", address)
    assert (ran.status, ran.out.splitlines()[0]) == (1, "127.0.0.1: refused")
    assert findings(ran, "clients from this source: 1 of 1")


def test_an_unreachable_daemon_is_an_error_of_its_own(daemon: MakeDaemon) -> None:
    """The exit status is neither that of admission nor that of refusal."""
    served = daemon()
    os.unlink(os.path.join(served.folder, "control.sock"))
    ran = served.tetrad("explain", "127.0.0.1")
    assert (ran.status, ran.out) == (4, "")
    assert "no such file" in ran.err


def test_a_stopped_daemons_counts_do_not_apply(daemon: MakeDaemon) -> None:
    """After its end only the file counts."""
    served = daemon(limits={"clients": 1})
    served.served()
    until(lambda: not would_be_admitted(served, "127.0.0.1"), "a client")
    served.stop()
    ran = served.tetrad("explain", "127.0.0.1")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, FREE)
