"""Clients' addresses: how the log shows them, and what admission reckons with."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tetrad.system import addresses

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")


@pytest.mark.parametrize(
    ("peer", "name", "client"),
    [
        (("203.0.113.7", 38276), "203.0.113.7:38276", "203.0.113.7"),
        (("2001:db8::1", 38276, 0, 0), "[2001:db8::1]:38276", "2001:db8::1"),
        (("::1", 1, 0, 0), "[::1]:1", "::1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1:5", "192.0.2.1"),
        (("fe80::1%eth0", 5, 0, 2), "[fe80::1]:5", "fe80::1"),
        (("::ffff:0:c000:201", 5, 0, 0), "[::ffff:0:c000:201]:5", "::ffff:0:c000:201"),
        (("::192.0.2.1", 5, 0, 0), "[::192.0.2.1]:5", "::c000:201"),
    ],
)
def test_a_peer_has_a_name_and_a_number(peer: tuple[str, int], name: str, client: str) -> None:
    """IPv6 stands in brackets, and who came by IPv4 to a dual-stack socket is an IPv4 client."""
    address = ipaddress.ip_address(client)
    assert addresses.parse_peer(peer, 1) == (name, (address.max_prefixlen, int(address)))


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_an_ipv4_client_is_the_same_at_either_kind_of_socket(
    address: ipaddress.IPv4Address, port: int
) -> None:
    """A dual-stack socket and an IPv4 one tell of the same client."""
    known = (f"{address}:{port}", (32, int(address)))
    assert addresses.parse_peer((str(address), port), 1) == known
    assert addresses.parse_peer((f"::ffff:{address}", port, 0, 0), 1) == known


@pytest.mark.parametrize("peer", ["", b"", None, "/tmp/named"])  # noqa: S108 - a name, not a file
def test_unix_peers_are_told_apart_by_their_serial(peer: object) -> None:
    """Peers of a Unix socket have no address, and are named by when they came."""
    assert addresses.parse_peer(peer, 7) == ("unix:7", None)


@given(st.ip_addresses())
def test_an_address_is_read_as_its_number(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """What an operator asks about is the same source as a client that comes from there."""
    assume(int(address) >> 32 != 0xFFFF)
    assert addresses.parse(str(address)) == (address.max_prefixlen, int(address))


@pytest.mark.parametrize("text", ["::ffff:192.0.2.1", "::FFFF:c000:201", "0:0::ffff:192.0.2.1"])
def test_a_mapped_address_is_the_one_it_stands_for(text: str) -> None:
    """However it is spelt, an IPv6 address that stands for an IPv4 one is that."""
    assert addresses.parse(text) == (32, 0xC0000201)


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2", "192.0.2.1:5", "[::1]", "::1%eth0"])
def test_what_is_no_address_is_an_error_of_the_system(text: str) -> None:
    """Names, ports, brackets and zones are not part of an address."""
    with pytest.raises(OSError, match="illegal IP address"):
        addresses.parse(text)
