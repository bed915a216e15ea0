"""Client addresses: their names in the log, and their numbers for access lists and limits."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tetrad.system import addresses


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
    """IPv6 is in brackets; an IPv4 client of a dual-stack socket is an IPv4 client."""
    address = ipaddress.ip_address(client)
    assert addresses.parse_peer(peer, 1) == (name, (address.max_prefixlen, int(address)))


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_an_ipv4_client_is_the_same_on_either_kind_of_socket(
    address: ipaddress.IPv4Address, port: int
) -> None:
    """A dual-stack socket and an IPv4 socket give the same name and source."""
    expected = (f"{address}:{port}", (32, int(address)))
    assert addresses.parse_peer((str(address), port), 1) == expected
    assert addresses.parse_peer((f"::ffff:{address}", port, 0, 0), 1) == expected


@pytest.mark.parametrize("peer", ["", b"", None, "/tmp/named"])  # noqa: S108 - a name, not a file
def test_unix_peers_are_named_by_serial(peer: object) -> None:
    """Peers of a Unix socket have no address."""
    assert addresses.parse_peer(peer, 7) == ("unix:7", None)


@given(st.ip_addresses())
def test_an_address_is_parsed_as_its_number(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """`tetrad explain` has the same source for an address as the master has for a client."""
    assume(int(address) >> 32 != 0xFFFF)
    assert addresses.parse(str(address)) == (address.max_prefixlen, int(address))


@pytest.mark.parametrize("text", ["::ffff:192.0.2.1", "::FFFF:c000:201", "0:0::ffff:192.0.2.1"])
def test_a_mapped_address_is_the_ipv4_address(text: str) -> None:
    """In every spelling."""
    assert addresses.parse(text) == (32, 0xC0000201)


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2", "192.0.2.1:5", "[::1]", "::1%eth0"])
def test_other_text_is_an_os_error(text: str) -> None:
    """Names, ports, brackets and zones are not part of an address."""
    with pytest.raises(OSError, match="illegal IP address"):
        addresses.parse(text)


@pytest.mark.parametrize(
    "peer", [("192.0.2.1", 7), ("2001:db8::1", 7, 0, 0), ("::ffff:192.0.2.1", 7, 0, 0), b""]
)
def test_the_source_of_a_peer_is_in_its_name(peer: object) -> None:
    """A peer of a Unix socket has none."""
    name, source = addresses.parse_peer(peer, 5)
    assert addresses.source_of_name(name) == source
