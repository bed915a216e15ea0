"""Who may come in: access lists, limits and rates, held against simpler ways to say the same."""

from __future__ import annotations

import ipaddress
import pickle
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.ipc.access_list import AccessList
from tetrad.master import admission
from tetrad.master.admission import Admission, RateLimiter, source_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetrad.ipc.runtime_config import AccessRule, LimitsConfig
    from tetrad.system.addresses import Source

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

UNIX = None
"""A client of a Unix socket has no address."""

ALICE, BOB, CAROL = ((32, int(ipaddress.ip_address(f"192.0.2.{n}"))) for n in (1, 2, 3))


def address_of(text: str) -> Source:
    """Return an address as admission knows it."""
    address = ipaddress.ip_address(text)
    return address.max_prefixlen, int(address)


def rule(text: str, *, allow: bool) -> AccessRule:
    """Return a rule about a network."""
    network = ipaddress.ip_network(text)
    return {
        "name": f"access.{'allow' if allow else 'deny'} {text}",
        "bits": network.max_prefixlen,
        "network": int(network.network_address),
        "prefix": network.prefixlen,
        "allow": allow,
    }


def rules(allow: Iterable[str] = (), deny: Iterable[str] = ()) -> list[AccessRule]:
    """Return the rules of two lists."""
    return [
        *(rule(text, allow=True) for text in allow),
        *(rule(text, allow=False) for text in deny),
    ]


def limits(
    clients: int = 1000, each: int | None = None, rate: tuple[int, int] | None = None
) -> LimitsConfig:
    """Return limits."""
    return {"clients": clients, "clients_per_source": each, "rate_per_source": rate}


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
    """The longest prefix wins, deny wins a tie, and what matches nothing needs an empty allow."""
    access = AccessList(rules(allow.split(), deny.split()))
    assert access.allows(*address_of(client)) is allowed


@pytest.mark.parametrize("first", [True, False])
def test_deny_wins_a_tie_in_any_order(*, first: bool) -> None:
    """Of two rules about one network, the one that denies decides, wherever it stands."""
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
    """The lists say what their longest match says, wherever it stands."""
    client = ipaddress.ip_address(0xC0000200 | number)
    matches = [
        (ipaddress.ip_network(text).prefixlen, not allow)
        for text, allow in listed
        if client in ipaddress.ip_network(text)
    ]
    open_to_all = not any(allow for _, allow in listed)
    access = AccessList(rule(text, allow=allow) for text, allow in listed)
    assert access.allows(32, int(client)) is (not max(matches)[1] if matches else open_to_all)


def test_a_unix_socket_s_client_is_let_in_by_any_access_list() -> None:
    """Who has no address is in no list, and is the business of the socket's permissions."""
    closed = Admission(limits(), rules(deny=["0.0.0.0/0", "::/0"]))
    assert closed.allows(UNIX)
    assert closed.refusal_reason(UNIX, 0.0) is None


def test_a_source_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() -> None:
    """Whoever has one address of a /64 has all of them, so they are counted together."""
    one, same, other = map(address_of, ("2001:db8::1", "2001:db8::8000:0:0:1", "2001:db8:0:1::1"))
    assert source_of(one) == source_of(same) != source_of(other)
    assert source_of(ALICE) == ALICE != source_of(BOB)
    assert source_of(UNIX) is None


def test_an_ipv6_source_is_never_an_ipv4_source() -> None:
    """A /64 and an IPv4 address that are the same number are two sources."""
    assert source_of((128, ALICE[1] << 64)) != source_of(ALICE)


def test_clients_are_refused_beyond_the_limit() -> None:
    """As many clients as allowed come in, from wherever, and one more when one has left."""
    door = Admission(limits(clients=2), [])
    door.add_client(ALICE)
    assert door.refusal_reason(BOB, 0.0) is None
    door.add_client(UNIX)
    assert [door.refusal_reason(BOB, 0.0), door.refusal_reason(UNIX, 0.0)] == ["clients", "clients"]
    door.remove_client(ALICE)
    assert door.refusal_reason(BOB, 0.0) is None


def test_clients_of_one_source_are_refused_beyond_its_limit() -> None:
    """One source's clients are counted by themselves."""
    door = Admission(limits(each=2), [])
    door.add_client(ALICE)
    assert door.refusal_reason(ALICE, 0.0) is None
    door.add_client(ALICE)
    assert door.refusal_reason(ALICE, 0.0) == "clients_per_source"
    assert door.refusal_reason(BOB, 0.0) is None
    door.remove_client(ALICE)
    assert door.refusal_reason(ALICE, 0.0) is None


def test_the_clients_of_an_ipv6_network_share_its_limit() -> None:
    """Neighbours in a /64 are one source, and leave as one."""
    door = Admission(limits(each=1), [])
    door.add_client(address_of("2001:db8::1"))
    assert door.refusal_reason(address_of("2001:db8::2"), 0.0) == "clients_per_source"
    door.remove_client(address_of("2001:db8::1"))
    assert door.refusal_reason(address_of("2001:db8::2"), 0.0) is None


def test_unix_clients_share_no_limit_of_a_source() -> None:
    """Clients without an address have no source whose limits or rates they could exceed."""
    door = Admission(limits(each=1, rate=(1, 1)), [])
    for _ in range(3):
        assert door.refusal_reason(UNIX, 0.0) is None
        door.add_client(UNIX)
    assert door.clients == 3


def test_a_source_that_comes_too_fast_is_refused() -> None:
    """A source may come as often as its rate says, whether its clients stay or not."""
    door = Admission(limits(rate=(2, 60)), [])
    reasons = [door.refusal_reason(ALICE, 7.0) for _ in range(3)]
    assert reasons == [None, None, "rate"]
    assert door.refusal_reason(BOB, 7.0) is None
    assert door.refusal_reason(ALICE, 37.0) is None


@pytest.mark.parametrize(
    ("most", "reason"),
    [
        (limits(clients=1, each=1, rate=(1, 60)), "clients"),
        (limits(each=1, rate=(1, 60)), "clients_per_source"),
        (limits(rate=(1, 60)), "rate"),
        (limits(), None),
    ],
)
def test_the_first_reason_is_the_one_that_is_told(most: LimitsConfig, reason: str | None) -> None:
    """All are tried in one order: clients, clients of a source, rate."""
    door = Admission(most, [])
    assert door.refusal_reason(ALICE, 0.0) is None
    door.add_client(ALICE)
    assert door.refusal_reason(ALICE, 0.0) == reason


def test_the_access_lists_come_before_all_limits() -> None:
    """Who is denied hears nothing of how full it is."""
    door = Admission(limits(clients=1), rules(deny=["192.0.2.1/32"]))
    door.add_client(BOB)
    assert door.refusal_reason(ALICE, 0.0) == "access"
    assert not door.allows(ALICE)


def test_who_is_refused_for_another_reason_keeps_its_rate() -> None:
    """Only what may come in uses up the rate."""
    door = Admission(limits(each=1, rate=(2, 60)), [])
    assert door.refusal_reason(ALICE, 0.0) is None
    door.add_client(ALICE)
    assert door.refusal_reason(ALICE, 0.0) == "clients_per_source"
    door.remove_client(ALICE)
    assert [door.refusal_reason(ALICE, 0.0), door.refusal_reason(ALICE, 0.0)] == [None, "rate"]


def test_other_rules_apply_to_who_is_in_already() -> None:
    """After a reload the clients that are in are still counted, against the new limits."""
    door = Admission(limits(rate=(1, 60)), rules(deny=["192.0.2.2/32"]))
    door.refusal_reason(ALICE, 0.0)
    door.add_client(ALICE)
    door.configure(limits(clients=2, each=1), [])
    assert door.refusal_reason(ALICE, 0.0) == "clients_per_source"
    assert door.refusal_reason(BOB, 0.0) is None
    door.configure(limits(clients=1), [])
    assert door.refusal_reason(BOB, 0.0) == "clients"


visits = st.lists(st.sampled_from([ALICE, BOB, UNIX, (128, 5 << 64), (128, 5 << 64 | 9)]))


@given(visits, st.integers(1, 4), st.integers(1, 3), st.data())
def test_counts_follow_who_is_in(
    arriving: list[Source | None], most: int, each: int, data: st.DataObject
) -> None:
    """However clients come and go, each is refused exactly when a count of them all says so."""
    door = Admission(limits(most, each), [])
    inside: list[Source | None] = []
    for address in arriving:
        here = Counter(map(source_of, inside))[source_of(address)]
        reason = "clients_per_source" if address is not None and here >= each else None
        assert door.refusal_reason(address, 0.0) == ("clients" if len(inside) >= most else reason)
        if reason is None:
            door.add_client(address)
            inside.append(address)
        somebody_leaves = data.draw(st.booleans())
        if inside and somebody_leaves:
            door.remove_client(inside.pop(data.draw(st.integers(0, len(inside) - 1))))
        assert door.clients == len(inside)


@given(visits)
def test_nothing_is_remembered_of_who_has_left(arriving: list[Source | None]) -> None:
    """When all have left, everything is as it was before they came."""
    door = Admission(limits(each=2), [])
    before = pickle.dumps(door)
    for address in arriving:
        door.add_client(address)
    for address in arriving:
        door.remove_client(address)
    assert pickle.dumps(door) == before


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (20, 1), (300, 60), (1000, 3600), (7, 60)])
def test_a_burst_of_the_whole_rate_is_let_in_at_once(count: int, seconds: int) -> None:
    """A source at rest may come `count` times in one moment, and not once more."""
    rates = RateLimiter(count, seconds)
    taken = [rates.consume(ALICE, 1000.1) for _ in range(count + 2)]
    assert taken == [True] * count + [False, False]


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (20, 1), (300, 60), (7, 60)])
def test_the_rate_comes_back_one_by_one(count: int, seconds: int) -> None:
    """After a burst, one more may come each `seconds / count`, and none before."""
    rates, interval = RateLimiter(count, seconds), seconds / count
    for _ in range(count):
        rates.consume(ALICE, 0.0)
    for turn in range(1, 4):
        assert not rates.consume(ALICE, (turn - 0.01) * interval)
        assert rates.consume(ALICE, turn * interval)


def test_a_source_at_rest_saves_up_no_more_than_a_burst() -> None:
    """However long a source stays away, it gets no more than its rate at once."""
    rates = RateLimiter(2, 1)
    rates.consume(ALICE, 0.0)
    assert [rates.consume(ALICE, 1e6) for _ in range(3)] == [True, True, False]


def test_a_refused_attempt_costs_nothing() -> None:
    """Who keeps trying waits no longer than who does not."""
    rates = RateLimiter(1, 10)
    assert rates.consume(ALICE, 0.0)
    assert not any(rates.consume(ALICE, now) for now in (1.0, 5.0, 9.0))
    assert rates.consume(ALICE, 10.0)


@given(st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.integers(0, 6))))
def test_rates_are_those_of_buckets_of_tokens(comings: list[tuple[Source, int]]) -> None:
    """Each source has a bucket of four tokens that gets one a quarter of a second."""
    rates, now = RateLimiter(4, 1), Fraction(0)
    buckets: dict[Source, tuple[Fraction, Fraction]] = {}
    for source, eighths in comings:
        now += Fraction(eighths, 8)
        tokens, since = buckets.get(source, (Fraction(4), now))
        tokens = min(Fraction(4), tokens + (now - since) * 4)
        assert rates.consume(source, float(now)) is (tokens >= 1)
        buckets[source] = (tokens - 1 if tokens >= 1 else tokens, now)


def test_who_asks_hears_how_long_to_wait() -> None:
    """The wait is until one more may come, and asking costs nothing."""
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


def test_an_outlook_says_what_a_client_would_meet() -> None:
    """An operator sees the access, the counts with their limits, and the wait of a source."""
    door = Admission(limits(clients=9, each=4, rate=(1, 60)), rules(deny=["192.0.2.2/32"]))
    door.refusal_reason(ALICE, 0.0)
    door.add_client(ALICE)
    expected = {"clients": 1, "clients_limit": 9, "from_source_limit": 4, "rate_limit": (1, 60)}
    alice, bob = door.report(ALICE, 15.0), door.report(BOB, 15.0)
    assert alice.pop("wait") == pytest.approx(45.0, abs=0.001)
    assert alice == {**expected, "access": True, "rule": None, "from_source": 1}
    denied = {"access": False, "rule": "access.deny 192.0.2.2/32", "from_source": 0, "wait": 0.0}
    assert bob == {**expected, **denied}


def test_an_outlook_without_limits_has_none() -> None:
    """Where there is no rate there is nothing to wait for, and the neighbours count in a /64."""
    door = Admission(limits(), [])
    door.add_client(address_of("2001:db8::1"))
    outlook = door.report(address_of("2001:db8::2"), 0.0)
    assert (outlook["from_source"], outlook["from_source_limit"], outlook["wait"]) == (1, None, 0.0)


def test_the_sources_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of sources makes the tables no larger than they may be."""
    monkeypatch.setattr(admission, "MAX_BUCKETS", 8)
    rates = RateLimiter(1, 60)
    sizes = []
    for number in range(100):
        assert rates.consume((32, number), 0.0)
        sizes.append(len(rates))
    assert sizes[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert max(sizes) == 8
    assert sizes[8] == 5


def test_who_came_last_is_remembered_through_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the tables are full, the half that was let in longest ago is forgotten."""
    monkeypatch.setattr(admission, "MAX_BUCKETS", 4)
    rates = RateLimiter(1, 60)
    for number in range(5):
        assert rates.consume((32, number), 0.0)
    remembered = [not rates.consume((32, number), 0.0) for number in (4, 3, 2)]
    assert remembered == [True, True, True]
    assert rates.consume((32, 0), 0.0)


def test_who_comes_again_is_remembered_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that was let in once more is not forgotten with those that came when it did."""
    monkeypatch.setattr(admission, "MAX_BUCKETS", 4)
    rates, dave = RateLimiter(2, 60), (32, 4)
    assert all(rates.consume(source, 0.0) for source in (ALICE, BOB, ALICE, CAROL, dave))
    assert not rates.consume(ALICE, 0.0)
    assert [rates.consume(BOB, 0.0) for _ in range(3)] == [True, True, False]
