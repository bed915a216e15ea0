"""Admission: access lists, limits and rates, compared with simpler implementations."""

from __future__ import annotations

import ipaddress
import pickle
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.ipc.access_list import AccessList
from tetrad.master import admission
from tetrad.master.admission import Admission, RateLimiter, source_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetrad.ipc.runtime_config import AccessRule, LimitsConfig
    from tetrad.system.addresses import Source

UNIX = None
"""A client of a Unix socket has no source."""

ALICE, BOB, CAROL = ((32, int(ipaddress.ip_address(f"192.0.2.{n}"))) for n in (1, 2, 3))


def address_of(text: str) -> Source:
    """Return an address as a source."""
    address = ipaddress.ip_address(text)
    return address.max_prefixlen, int(address)


def rule(text: str, *, allow: bool) -> AccessRule:
    """Return an access rule for a network."""
    network = ipaddress.ip_network(text)
    return {
        "name": f"access.{'allow' if allow else 'deny'} {text}",
        "bits": network.max_prefixlen,
        "network": int(network.network_address),
        "prefix": network.prefixlen,
        "allow": allow,
    }


def rules(allow: Iterable[str] = (), deny: Iterable[str] = ()) -> list[AccessRule]:
    """Return the access rules of two lists."""
    return [
        *(rule(text, allow=True) for text in allow),
        *(rule(text, allow=False) for text in deny),
    ]


def limits(
    clients: int = 1000,
    each: int | None = None,
    rate: tuple[int, int] | None = None,
    exempt: Iterable[str] = (),
) -> LimitsConfig:
    """Return the configuration of limits."""
    return {
        "clients": clients,
        "clients_per_source": each,
        "exempt": rules(exempt),
        "rate_per_source": rate,
    }


@pytest.mark.parametrize(
    ("allow", "deny", "client", "allowed"),
    [
        ("", "", "192.0.2.1", True),
        ("", "", "2001:db8::1", True),
        ("", "192.0.2.0/24", "192.0.2.1", False),
        ("", "192.0.2.0/24", "192.0.3.1", True),
        ("192.0.2.0/24", "", "192.0.2.255", True),
        ("192.0.2.0/24", "", "192.0.3.0", False),
        ("192.0.2.0/24", "10.0.0.0/8", "192.0.3.0", False),
        ("192.0.2.0/24", "", "2001:db8::1", False),
        ("192.0.2.0/24", "192.0.2.7/32", "192.0.2.7", False),
        ("192.0.2.0/24", "192.0.2.7/32", "192.0.2.8", True),
        ("192.0.2.7/32", "192.0.2.0/24", "192.0.2.7", True),
        ("192.0.2.7/32", "192.0.2.0/24", "192.0.2.8", False),
        ("10.0.0.0/8 10.1.1.0/24", "10.1.0.0/16", "10.1.1.1", True),
        ("10.0.0.0/8 10.1.1.0/24", "10.1.0.0/16", "10.1.2.1", False),
        ("10.0.0.0/8 10.1.1.0/24", "10.1.0.0/16", "10.2.0.1", True),
        ("192.0.2.0/24", "192.0.2.0/24", "192.0.2.1", False),
        ("0.0.0.0/0", "", "203.0.113.9", True),
        ("0.0.0.0/0", "", "2001:db8::1", False),
        ("::/0", "", "2001:db8::1", True),
        ("::/0", "", "203.0.113.9", False),
        ("", "0.0.0.0/0", "203.0.113.9", False),
        ("", "0.0.0.0/0", "::1", True),
        ("2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::5", False),
        ("2001:db8::/32", "2001:db8:1::/48", "2001:db8:2::5", True),
        ("2001:db8::1/128", "", "2001:db8::1", True),
        ("2001:db8::1/128", "", "2001:db8::2", False),
        ("::c000:201/128", "", "192.0.2.1", False),
    ],
)
def test_the_most_specific_match_decides(
    allow: str, deny: str, client: str, *, allowed: bool
) -> None:
    """The longest prefix wins, `deny` wins a tie; without a match only an empty `allow` admits."""
    access = AccessList(rules(allow.split(), deny.split()))
    assert access.allows(*address_of(client)) is allowed


@pytest.mark.parametrize("first", [True, False])
def test_deny_wins_a_tie_in_any_order(*, first: bool) -> None:
    """Of two rules for one network the denying one applies, in any order."""
    tied = [rule("192.0.2.0/24", allow=first), rule("192.0.2.0/24", allow=not first)]
    assert not AccessList(tied).allows(*ALICE)


networks = st.builds(
    lambda number, prefix: str(ipaddress.ip_network((0xC0000200 | number, prefix), strict=False)),
    st.integers(0, 15),
    st.integers(27, 32),
)


@given(st.lists(st.tuples(networks, st.booleans()), max_size=8), st.integers(0, 31))
def test_access_is_the_same_in_any_order_of_rules(
    listed: list[tuple[str, bool]], number: int
) -> None:
    """The longest match decides, in any order of the rules."""
    client = ipaddress.ip_address(0xC0000200 | number)
    matches = [
        (ipaddress.ip_network(text).prefixlen, not allow)
        for text, allow in listed
        if client in ipaddress.ip_network(text)
    ]
    open_to_all = not any(allow for _, allow in listed)
    access = AccessList(rule(text, allow=allow) for text, allow in listed)
    assert access.allows(32, int(client)) is (not max(matches)[1] if matches else open_to_all)


def test_unix_clients_are_not_subject_to_access_lists() -> None:
    """The permissions of the socket control their access."""
    closed = Admission(limits(), rules(deny=["0.0.0.0/0", "::/0"]))
    assert closed.allows(UNIX)
    assert closed.refusal_reason(UNIX, 0.0) is None


def test_a_source_is_an_ipv4_address_or_an_ipv6_64() -> None:
    """One user usually has a whole /64, so its addresses count together."""
    one, same, other = map(address_of, ("2001:db8::1", "2001:db8::8000:0:0:1", "2001:db8:0:1::1"))
    assert source_of(one) == source_of(same) != source_of(other)
    assert source_of(ALICE) == ALICE != source_of(BOB)


def test_an_ipv6_source_is_never_an_ipv4_source() -> None:
    """A /64 and an IPv4 address with the same number are two sources."""
    assert source_of((128, ALICE[1] << 64)) != source_of(ALICE)


def test_clients_are_refused_beyond_the_limit() -> None:
    """A slot is free again when a client has left."""
    policy = Admission(limits(clients=2), [])
    policy.add_client(ALICE)
    assert policy.refusal_reason(BOB, 0.0) is None
    policy.add_client(UNIX)
    assert [policy.refusal_reason(BOB, 0.0), policy.refusal_reason(UNIX, 0.0)] == [
        "clients",
        "clients",
    ]
    policy.remove_client(ALICE)
    assert policy.refusal_reason(BOB, 0.0) is None


def test_clients_of_one_source_are_refused_beyond_its_limit() -> None:
    """Each source has a count of its own."""
    policy = Admission(limits(each=2), [])
    policy.add_client(ALICE)
    assert policy.refusal_reason(ALICE, 0.0) is None
    policy.add_client(ALICE)
    assert policy.refusal_reason(ALICE, 0.0) == "clients_per_source"
    assert policy.refusal_reason(BOB, 0.0) is None
    policy.remove_client(ALICE)
    assert policy.refusal_reason(ALICE, 0.0) is None


def test_a_limit_of_zero_refuses_every_client() -> None:
    """A source without clients has as many as that."""
    assert Admission(limits(each=0), []).refusal_reason(ALICE, 0.0) == "clients_per_source"
    assert Admission(limits(clients=0), []).refusal_reason(ALICE, 0.0) == "clients"


def test_exempt_addresses_have_no_limit_of_clients() -> None:
    """The limit applies to all others; a rate applies to all."""
    policy = Admission(limits(each=1, rate=(2, 60), exempt=["192.0.2.1/32"]), [])
    for address in (ALICE, BOB):
        policy.add_client(address)
    assert policy.refusal_reason(BOB, 0.0) == "clients_per_source"
    assert [policy.refusal_reason(ALICE, 0.0) for _ in range(3)] == [None, None, "rate"]
    assert policy.report(ALICE, 0.0)["from_source_limit"] is None
    assert policy.report(BOB, 0.0)["from_source_limit"] == 1


@pytest.mark.parametrize(("clients", "crowded_from"), [(9, float("inf")), (10, 9), (1000, 900)])
def test_a_tenth_of_the_places_is_a_reserve(clients: int, crowded_from: float) -> None:
    """With fewer than ten places there is none."""
    assert Admission(limits(clients), []).crowded_from == crowded_from


def test_clients_of_one_ipv6_64_share_a_limit() -> None:
    """They are added to and removed from one count."""
    policy = Admission(limits(each=1), [])
    policy.add_client(address_of("2001:db8::1"))
    assert policy.refusal_reason(address_of("2001:db8::2"), 0.0) == "clients_per_source"
    policy.remove_client(address_of("2001:db8::1"))
    assert policy.refusal_reason(address_of("2001:db8::2"), 0.0) is None


def test_unix_clients_have_no_limit_per_source() -> None:
    """Clients without an address have no source to be limited."""
    policy = Admission(limits(each=1, rate=(1, 1)), [])
    for _ in range(3):
        assert policy.refusal_reason(UNIX, 0.0) is None
        policy.add_client(UNIX)
    assert policy.clients == 3


def test_a_source_beyond_its_rate_is_refused() -> None:
    """The rate counts admissions, whether the clients stay or leave."""
    policy = Admission(limits(rate=(2, 60)), [])
    reasons = [policy.refusal_reason(ALICE, 7.0) for _ in range(3)]
    assert reasons == [None, None, "rate"]
    assert policy.refusal_reason(BOB, 7.0) is None
    assert policy.refusal_reason(ALICE, 37.0) is None


@pytest.mark.parametrize(
    ("most", "reason"),
    [
        (limits(clients=1, each=1, rate=(1, 60)), "clients"),
        (limits(each=1, rate=(1, 60)), "clients_per_source"),
        (limits(rate=(1, 60)), "rate"),
        (limits(), None),
    ],
)
def test_limits_are_checked_in_order(most: LimitsConfig, reason: str | None) -> None:
    """Clients, clients of the source, rate: the first one exceeded is the reason."""
    policy = Admission(most, [])
    assert policy.refusal_reason(ALICE, 0.0) is None
    policy.add_client(ALICE)
    assert policy.refusal_reason(ALICE, 0.0) == reason


def test_access_lists_are_checked_before_limits() -> None:
    """A denied client does not learn how many clients are connected."""
    policy = Admission(limits(clients=1), rules(deny=["192.0.2.1/32"]))
    policy.add_client(BOB)
    assert policy.refusal_reason(ALICE, 0.0) == "access"
    assert not policy.allows(ALICE)


def test_a_refusal_does_not_consume_the_rate() -> None:
    """Only an admission does."""
    policy = Admission(limits(each=1, rate=(2, 60)), [])
    assert policy.refusal_reason(ALICE, 0.0) is None
    policy.add_client(ALICE)
    assert policy.refusal_reason(ALICE, 0.0) == "clients_per_source"
    policy.remove_client(ALICE)
    assert [policy.refusal_reason(ALICE, 0.0), policy.refusal_reason(ALICE, 0.0)] == [
        None,
        "rate",
    ]


def test_new_limits_count_connected_clients() -> None:
    """After a reload the connected clients count against the new limits."""
    policy = Admission(limits(rate=(1, 60)), rules(deny=["192.0.2.2/32"]))
    policy.refusal_reason(ALICE, 0.0)
    policy.add_client(ALICE)
    policy.configure(limits(clients=2, each=1), [])
    assert policy.refusal_reason(ALICE, 0.0) == "clients_per_source"
    assert policy.refusal_reason(BOB, 0.0) is None
    policy.configure(limits(clients=1), [])
    assert policy.refusal_reason(BOB, 0.0) == "clients"


visits = st.lists(st.sampled_from([ALICE, BOB, UNIX, (128, 5 << 64), (128, 5 << 64 | 9)]))


@given(visits, st.integers(1, 4), st.integers(1, 3), st.data())
def test_counts_match_the_connected_clients(
    arriving: list[Source | None], most: int, each: int, data: st.DataObject
) -> None:
    """Clients are refused exactly when a count of all connected clients requires it."""
    policy = Admission(limits(most, each), [])
    connected: list[Source | None] = []
    for address in arriving:
        sources = Counter(source_of(one) for one in connected if one is not None)
        is_full = address is not None and sources[source_of(address)] >= each
        reason = "clients_per_source" if is_full else None
        assert policy.refusal_reason(address, 0.0) == (
            "clients" if len(connected) >= most else reason
        )
        if reason is None:
            policy.add_client(address)
            connected.append(address)
        a_client_leaves = data.draw(st.booleans())
        if connected and a_client_leaves:
            policy.remove_client(connected.pop(data.draw(st.integers(0, len(connected) - 1))))
        assert policy.clients == len(connected)


@given(visits)
def test_no_state_is_left_of_disconnected_clients(arriving: list[Source | None]) -> None:
    """When all clients have left, the state equals the initial one."""
    policy = Admission(limits(each=2), [])
    before = pickle.dumps(policy)
    for address in arriving:
        policy.add_client(address)
    for address in arriving:
        policy.remove_client(address)
    assert pickle.dumps(policy) == before


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (20, 1), (300, 60), (1000, 3600), (7, 60)])
def test_a_burst_of_the_whole_rate_is_admitted(count: int, seconds: int) -> None:
    """An idle source may connect `count` times at once, and no more."""
    rates = RateLimiter(count, seconds)
    taken = [rates.consume(ALICE, 1000.1) for _ in range(count + 2)]
    assert taken == [True] * count + [False, False]


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (20, 1), (300, 60), (7, 60)])
def test_the_rate_is_refilled_one_by_one(count: int, seconds: int) -> None:
    """After a burst, one client is admitted every `seconds / count`."""
    rates, interval = RateLimiter(count, seconds), seconds / count
    for _ in range(count):
        rates.consume(ALICE, 0.0)
    for turn in range(1, 4):
        assert not rates.consume(ALICE, (turn - 0.01) * interval)
        assert rates.consume(ALICE, turn * interval)


def test_an_idle_source_saves_at_most_one_burst() -> None:
    """However long it is idle, it gets no more than its rate at once."""
    rates = RateLimiter(2, 1)
    rates.consume(ALICE, 0.0)
    assert [rates.consume(ALICE, 1e6) for _ in range(3)] == [True, True, False]


def test_refused_attempts_do_not_extend_the_wait() -> None:
    """A source that keeps trying waits no longer than one that does not."""
    rates = RateLimiter(1, 10)
    assert rates.consume(ALICE, 0.0)
    assert not any(rates.consume(ALICE, now) for now in (1.0, 5.0, 9.0))
    assert rates.consume(ALICE, 10.0)


@given(st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.integers(0, 6))))
def test_rates_match_a_token_bucket(attempts: list[tuple[Source, int]]) -> None:
    """A bucket of four tokens, refilled with one each quarter of a second."""
    rates, now = RateLimiter(4, 1), Fraction(0)
    buckets: dict[Source, tuple[Fraction, Fraction]] = {}
    for source, eighths in attempts:
        now += Fraction(eighths, 8)
        tokens, since = buckets.get(source, (Fraction(4), now))
        tokens = min(Fraction(4), tokens + (now - since) * 4)
        assert rates.consume(source, float(now)) is (tokens >= 1)
        buckets[source] = (tokens - 1 if tokens >= 1 else tokens, now)


def test_the_wait_of_a_source_is_reported() -> None:
    """The time until the next admission; the query itself consumes nothing."""
    rates = RateLimiter(2, 60)
    assert rates.wait(ALICE, 0.0) == 0.0
    rates.consume(ALICE, 0.0)
    assert rates.wait(ALICE, 0.0) == 0.0
    rates.consume(ALICE, 0.0)
    assert rates.wait(ALICE, 10.0) == pytest.approx(20.0, abs=0.001)
    assert (
        rates.wait(ALICE, 30.0),
        rates.wait(BOB, 0.0),
        len(rates),
    ) == (0.0, 0.0, 1)


def test_a_report_has_access_counts_limits_and_wait() -> None:
    """This is what `tetrad explain` gets for an address."""
    policy = Admission(limits(clients=9, each=4, rate=(1, 60)), rules(deny=["192.0.2.2/32"]))
    policy.refusal_reason(ALICE, 0.0)
    policy.add_client(ALICE)
    expected = {"clients": 1, "clients_limit": 9, "from_source_limit": 4, "rate_limit": (1, 60)}
    alice, bob = policy.report(ALICE, 15.0), policy.report(BOB, 15.0)
    assert alice.pop("wait") == pytest.approx(45.0, abs=0.001)
    expected |= {"access": True, "rule": None, "network": None, "crash_wait": 0.0}
    assert alice == {**expected, "from_source": 1}
    denied = {"rule": "access.deny 192.0.2.2/32", "network": "192.0.2.2/32"}
    assert bob == {**expected, **denied, "access": False, "from_source": 0, "wait": 0.0}


def test_a_report_without_limits_has_none() -> None:
    """Without a rate there is no wait; other addresses of the /64 are counted."""
    policy = Admission(limits(), [])
    policy.add_client(address_of("2001:db8::1"))
    report = policy.report(address_of("2001:db8::2"), 0.0)
    assert (report["from_source"], report["from_source_limit"], report["wait"]) == (1, None, 0.0)


def test_a_source_that_crashes_handlers_is_kept_out() -> None:
    """After ten crashes, for as long as it takes that there were fewer in ten minutes."""
    policy = Admission(limits(each=100), [])
    for _ in range(9):
        policy.count_crash(ALICE, 0.0)
    assert policy.refusal_reason(ALICE, 0.0) is None
    policy.count_crash(ALICE, 0.0)
    policy.count_crash(None, 0.0)
    assert policy.refusal_reason(ALICE, 59.0) == "crashes"
    assert policy.report(ALICE, 15.0)["crash_wait"] == pytest.approx(45.0, abs=0.001)
    assert policy.refusal_reason(BOB, 59.0) is None
    policy.configure(limits(each=200), [])
    assert policy.refusal_reason(ALICE, 59.0) == "crashes"
    assert policy.refusal_reason(ALICE, 61.0) is None
    policy.count_crash(ALICE, 61.0)
    assert policy.refusal_reason(ALICE, 61.0) == "crashes"


def test_crashes_do_not_matter_where_sources_are_not_limited() -> None:
    """All clients may come from one address then, of a balancer."""
    policy = Admission(limits(rate=(1000, 1)), [])
    for _ in range(20):
        policy.count_crash(ALICE, 0.0)
    assert policy.refusal_reason(ALICE, 0.0) is None


def test_the_number_of_remembered_sources_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of sources does not let the tables grow beyond the maximum."""
    monkeypatch.setattr(admission, "MAX_BUCKETS", 8)
    rates = RateLimiter(1, 60)
    sizes = []
    for number in range(100):
        assert rates.consume((32, number), 0.0)
        sizes.append(len(rates))
    assert sizes[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert max(sizes) == 8
    assert sizes[8] == 5


def test_a_full_table_forgets_the_oldest_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The half of the sources with the oldest admissions is forgotten."""
    monkeypatch.setattr(admission, "MAX_BUCKETS", 4)
    rates = RateLimiter(1, 60)
    for number in range(5):
        assert rates.consume((32, number), 0.0)
    remembered = [not rates.consume((32, number), 0.0) for number in (4, 3, 2)]
    assert remembered == [True, True, True]
    assert rates.consume((32, 0), 0.0)


def test_a_returning_source_is_remembered_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second admission makes a source one of the latest."""
    monkeypatch.setattr(admission, "MAX_BUCKETS", 4)
    rates, dave = RateLimiter(2, 60), (32, 4)
    assert all(rates.consume(source, 0.0) for source in (ALICE, BOB, ALICE, CAROL, dave))
    assert not rates.consume(ALICE, 0.0)
    assert [rates.consume(BOB, 0.0) for _ in range(3)] == [True, True, False]


def test_a_stopped_admission_refuses_every_client() -> None:
    """The reason is `stopping`, whatever the access lists and limits allow."""
    decides = Admission(limits(), [])
    assert decides.refusal_reason(ALICE, 0.0) is None
    decides.stop()
    assert decides.refusal_reason(ALICE, 0.0) == "stopping"
    assert decides.refusal_reason(None, 0.0) == "stopping"
