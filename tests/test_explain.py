"""`tetrad explain`: by which rule an address is judged, and that a real client meets just that."""

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
    """Return what is said of the access lists, without the folder of the file."""
    lines = daemon.tetrad("explain", address).out.splitlines()
    return lines[1].replace(f"{daemon.file}:", "line ")


def meets(daemon: Daemon, source: str, host: str = "127.0.0.1") -> bool:
    """Tell whether a real client is let in; it leaves again."""
    client = daemon.connect(source=source, host=host)
    try:
        return client.quit() == b"quit"
    except ConnectionError:
        return False


def explained(daemon: Daemon, address: str) -> bool:
    """Tell whether a client would be let in, by the exit status and the first line alike."""
    ran = daemon.tetrad("explain", address)
    assert ran.err == ""
    word = {0: "let in", 1: "refused"}[ran.status]
    assert ran.out.splitlines()[0].endswith(f": {word}")
    return ran.status == 0


def findings(ran: Ran, topic: str) -> str:
    """Return the line about one topic."""
    return next(line for line in ran.out.splitlines() if line[6:].startswith(topic))


def test_the_rule_and_its_line_are_named(prepared: MakeDaemon) -> None:
    """The first line says what becomes of the client, and the second by what, to be looked up."""
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
    ("address", "said"),
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
def test_the_most_specific_rule_wins(prepared: MakeDaemon, address: str, said: str) -> None:
    """The longest prefix of both lists decides, on a tie deny, and IPv4 in IPv6 is IPv4."""
    allow = ["10.0.0.0/8", "10.1.2.0/24", "192.0.2.0/24", "2001:db8::/32"]
    deny = ["10.1.0.0/16", "192.0.2.0/24", "2001:db8::bad"]
    assert rule(prepared(access={"allow": allow, "deny": deny}), address) == said


def test_without_rules_everybody_may_come(prepared: MakeDaemon) -> None:
    """No list at all lets an address in."""
    daemon = prepared()
    assert explained(daemon, "203.0.113.1")
    assert rule(daemon, "203.0.113.1").startswith("  ok  access: no rule names it")


def test_whom_no_rule_denies_may_come(prepared: MakeDaemon) -> None:
    """With denials alone, everybody else is let in."""
    daemon = prepared(access={"deny": ["192.0.2.0/24"]})
    assert explained(daemon, "203.0.113.1")
    assert not explained(daemon, "192.0.2.1")


@pytest.mark.parametrize("address", ["", "x", "127.1", "192.0.2.0/24", "010.0.0.1", "unix:/x"])
def test_what_is_no_address_is_misuse(prepared: MakeDaemon, address: str) -> None:
    """Names, networks and short forms are refused as a usage error."""
    ran = prepared().tetrad("explain", address)
    assert (ran.status, ran.out) == (2, "")
    assert "expected an IPv4 or IPv6 address" in ran.err


def test_a_bad_file_explains_nothing(prepared: MakeDaemon) -> None:
    """Nobody is judged by a file that no daemon would take."""
    daemon = prepared(limits={"clients": "many"})
    ran = daemon.tetrad("explain", "127.0.0.1")
    assert (ran.status, ran.out) == (78, "")
    assert "limits.clients: " in ran.err


def test_a_client_meets_what_was_explained(daemon: MakeDaemon) -> None:
    """Rules of all lengths, ties, and no rule at all do what is said of them."""
    allow = ["127.0.0.0/28", "127.0.0.3", "127.0.0.4/31", "127.0.0.6"]
    deny = ["127.0.0.2", "127.0.0.5", "127.0.0.6", "127.0.0.0/29"]
    served = daemon(access={"allow": allow, "deny": deny})
    for number in (*range(2, 9), 16):
        host = f"127.0.0.{number}"
        assert explained(served, host) == meets(served, host) == (number in {3, 4, 8}), host


def test_ipv6_clients_meet_what_was_explained(daemon: MakeDaemon) -> None:
    """Of a dual-stack listener, rules of both kinds hold."""
    served = daemon(
        access={"allow": ["::1"], "deny": ["127.0.0.9"]}, listen=[{"address": "::", "port": 0}]
    )
    assert explained(served, "::1")
    assert meets(served, "::1", "::1")
    assert not explained(served, "127.0.0.1")
    assert not meets(served, "127.0.0.1")


@pytest.mark.parametrize(
    ("limits", "topic", "said"),
    [
        ({"clients": 2}, "clients:", "clients: {} of 2 are in (limits.clients, {}"),
        (
            {"clients_per_source": 2},
            "clients from",
            "clients from this source: {} of 2 (limits.clients_per_source, {}",
        ),
    ],
)
def test_how_near_a_limit_is_is_told(
    daemon: MakeDaemon, limits: dict[str, Any], topic: str, said: str
) -> None:
    """The clients that are in are counted, and with the last place goes the welcome."""
    served = daemon(limits=limits)
    for count in range(2):
        ran = served.tetrad("explain", "127.0.0.1")
        assert ran.status == 0
        assert findings(ran, topic).startswith("  ok  " + said.format(count, served.file))
        served.served()
    ran = served.tetrad("explain", "127.0.0.1")
    assert ran.status == 1
    assert findings(ran, topic).startswith("  NO  " + said.format(2, served.file))
    assert served.connect().is_refused()


def test_other_sources_have_limits_of_their_own(daemon: MakeDaemon) -> None:
    """`clients_per_source` of one source says nothing of another."""
    served = daemon(limits={"clients_per_source": 1})
    served.served(source="127.0.0.2")
    assert not explained(served, "127.0.0.2")
    assert explained(served, "127.0.0.3")


def test_the_wait_for_the_rate_is_told(daemon: MakeDaemon) -> None:
    """A source that came too fast learns when it may come again."""
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
    assert explained(served, "127.0.0.2")


def test_networks_of_ipv4_in_ipv6_are_of_ipv4(daemon: MakeDaemon) -> None:
    """A rule may be written as dual-stack sockets show their clients."""
    served = daemon(access={"allow": ["::ffff:127.0.0.0/127"]})
    assert explained(served, "127.0.0.1") is meets(served, "127.0.0.1") is True
    assert explained(served, "127.0.0.2") is meets(served, "127.0.0.2") is False


def test_being_asked_uses_nothing_up(daemon: MakeDaemon) -> None:
    """However often it is explained, the one session of the rate is still to be had."""
    served = daemon(limits={"rate_per_source": "1/h", "clients": 1})
    assert all(explained(served, "127.0.0.1") for _ in range(3))
    assert served.status()["clients"]["peak"] == 0
    assert meets(served, "127.0.0.1")


def test_limits_that_nobody_set_are_told_as_defaults(daemon: MakeDaemon) -> None:
    """Without limits in the file, only the number of clients is told."""
    lines = daemon().tetrad("explain", "127.0.0.1").out.splitlines()
    assert lines[2:] == ["  ok  clients: 0 of 1000 are in (limits.clients, by default)"]


@pytest.mark.parametrize(("before", "after"), [(["127.0.0.2"], []), ([], ["127.0.0.2"])])
def test_a_running_daemon_has_the_last_word(
    daemon: MakeDaemon, before: list[str], after: list[str]
) -> None:
    """Until a reload the lists that the daemon has decide, and that the file differs is said."""
    served = daemon(access={"deny": before})
    served.configure(access={"deny": after})
    assert explained(served, "127.0.0.2") == meets(served, "127.0.0.2") == (not before)
    assert "but the daemon, not reloaded since" in rule(served, "127.0.0.2")
    assert served.tetrad("reload").status == 0
    assert explained(served, "127.0.0.2") == meets(served, "127.0.0.2") == (not after)
    assert "daemon" not in rule(served, "127.0.0.2")


def test_a_rate_that_only_the_daemon_has_counts(daemon: MakeDaemon) -> None:
    """A limit that was taken out of the file holds until the daemon hears of it."""
    served = daemon(limits={"rate_per_source": "1/h"})
    served.served()
    served.configure(limits={"rate_per_source": None})
    assert not explained(served, "127.0.0.1")
    assert not meets(served, "127.0.0.1")
    assert served.tetrad("reload").status == 0
    assert explained(served, "127.0.0.1")
    assert meets(served, "127.0.0.1")


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::ffff:7f00:1"])
def test_ipv4_in_ipv6_is_asked_for_as_ipv4(daemon: MakeDaemon, address: str) -> None:
    """The daemon is asked for the lists and the limits of the IPv4 client."""
    served = daemon(access={"allow": ["127.0.0.1"]}, limits={"clients_per_source": 1})
    assert explained(served, address)
    served.served()
    ran = served.tetrad("explain", address)
    assert (ran.status, ran.out.splitlines()[0]) == (1, "127.0.0.1: refused")
    assert findings(ran, "clients from this source: 1 of 1")


def test_no_answer_is_not_a_refusal(daemon: MakeDaemon) -> None:
    """Where a daemon runs that cannot be asked, nothing is known, with a status of its own."""
    served = daemon()
    os.unlink(os.path.join(served.folder, "control.sock"))
    ran = served.tetrad("explain", "127.0.0.1")
    assert (ran.status, ran.out) == (4, "")
    assert "no such file" in ran.err


def test_a_stopped_daemon_limits_nobody(daemon: MakeDaemon) -> None:
    """After its end, only the file counts again."""
    served = daemon(limits={"clients": 1})
    served.served()
    until(lambda: not explained(served, "127.0.0.1"), "a client")
    served.stop()
    ran = served.tetrad("explain", "127.0.0.1")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, FREE)
