"""The PROXY header: parsed the same in whatever pieces it arrives, or an error."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.proxy_headers import (
    LOCAL,
    SIGNATURE,
    TCP4,
    TCP6,
    UNIX,
    tlv,
    version_1,
    version_2,
    with_checksum,
)
from tetrad.protocol import proxy
from tetrad.protocol.proxy import HeaderError, crc32c, header_length, parse

ports = st.integers(0, 65535)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)
peers = st.tuples(st.one_of(ipv4, ipv6), ports)
tlvs = st.lists(st.tuples(st.integers(6, 255), st.binary(max_size=40)), max_size=4).map(
    lambda pairs: b"".join(tlv(kind, value) for kind, value in pairs)
)
headers = st.one_of(
    peers.map(version_1),
    st.builds(version_2, peers, tlvs),
    st.just(b"PROXY UNKNOWN\r\n"),
    st.just(LOCAL),
)


def parsed(header: bytes) -> tuple[object, ...]:
    """Return peer, path and unique id of a complete header. Raises HeaderError."""
    assert header_length(header) == (len(header), True)
    found = parse(header)
    return found.peer, found.path, found.unique_id


def error_of(data: bytes) -> str:
    """Return why bytes are not a header."""
    with pytest.raises(HeaderError) as error:
        parsed(data)
    return str(error.value)


def canonical(text: str) -> str:
    """Return an address as the system prints it."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, text))


@given(peers)
def test_both_versions_give_the_same_peer(peer: tuple[str, int]) -> None:
    """An IPv4 or IPv6 address and a port."""
    expected = ((canonical(peer[0]), peer[1]), None, "")
    assert parsed(version_1(peer)) == parsed(version_2(peer)) == expected


@given(headers, st.binary(max_size=40))
def test_the_end_of_a_header_is_found(header: bytes, rest: bytes) -> None:
    """Every prefix is incomplete; bytes behind the header do not belong to it."""
    for end in range(len(header)):
        assert header_length(header[:end]) == (end, False)
    assert header_length(header + rest) == (len(header), True)


@given(st.one_of(st.binary(max_size=80), st.tuples(headers, st.binary(max_size=9)).map(b"".join)))
@example(b"PROXY \r\n")
@example(b"\r\n")
def test_any_bytes_are_a_header_or_an_error(data: bytes) -> None:
    """A header, the beginning of one, or a HeaderError."""
    with contextlib.suppress(HeaderError):
        size, is_complete = header_length(data)
        assert 0 <= size <= len(data)
        if is_complete:
            parse(data[:size])


@given(peers, st.integers(0, 200), st.integers(0, 255))
def test_the_checksum_finds_a_changed_byte(peer: tuple[str, int], at: int, byte: int) -> None:
    """A changed address with a checksum is an error."""
    header = with_checksum(version_2(peer, tlv(5, b"id")))
    changed = bytearray(header)
    changed[16 + at % (len(header) - 16 - len(tlv(5, b"id")) - len(tlv(3, bytes(4))))] = byte
    if bytes(changed) == header:
        assert parsed(header) == ((canonical(peer[0]), peer[1]), None, "id")
    else:
        with pytest.raises(HeaderError):
            parse(bytes(changed))


def test_the_checksum_is_crc_32c() -> None:
    """By the usual check value, and those of RFC 3720."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_the_signature_is_that_of_the_specification() -> None:
    """Twelve bytes."""
    assert proxy.V2_SIGNATURE == bytes.fromhex("0d0a0d0a000d0a515549540a") == SIGNATURE


@pytest.mark.parametrize(
    "line",
    [
        "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
        "PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535".replace(
            "f:f...f:f", "f" + ":ffff" * 6 + ":f"
        ),
        "PROXY UNKNOWN",
        "PROXY UNKNOWN ffff:f...f:ffff anything at all 65536 x",
        "PROXY TCP4 0.0.0.0 0.0.0.0 0 0",
        "PROXY TCP6 :: ::1 1 2",
    ],
)
def test_lines_of_the_specification_are_accepted(line: str) -> None:
    """The longest of each family, the shortest, and UNKNOWN with anything."""
    assert len(parsed(line.encode() + b"\r\n")) == 3


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"time", "no PROXY header signature"),
        (b"proxy TCP4", "no PROXY header signature"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "the PROXY line does not end with CR LF"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r \n", "the PROXY line does not end with CR LF"),
        (b"PROXY \r\n", "expected PROXY TCP4 or TCP6, two addresses and two ports"),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "expected PROXY TCP4"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "expected PROXY TCP4"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "expected PROXY TCP4"),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "expected PROXY TCP4"),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", "not an IPv4 address: ::1"),
        (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "not an IPv6 address: 1.2.3.4"),
        (b"PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n", "not an IPv4 address: 1.2.3"),
        (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", "not an IPv4 address: 01.2.3.4"),
        (b"PROXY TCP4 1.2.3.\xff 1.2.3.4 1 2\r\n", "not an IPv4 address: 1.2.3.\\xff"),
        (b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "not an IPv6 address: fe80::1%lo"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "not a port: 65536"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n", "not a port: 02"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 00 2\r\n", "not a port: 00"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", "not a port: -1"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "not a port: +1"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1_0 2\r\n", "not a port: 1_0"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 \xb2 2\r\n", "not a port: \\xb2"),
        (b"PROXY UNKNOWN" + b" " * 93 + b"\r\n", "PROXY line longer than 107 bytes"),
        (b"PROXY UNKNOWN" + b" " * 94, "PROXY line longer than 107 bytes"),
    ],
)
def test_a_line_that_violates_the_specification_is_an_error(line: bytes, why: str) -> None:
    """Invalid headers are not guessed at, and the error describes the problem."""
    assert error_of(line).startswith(why)


def test_the_longest_line_is_accepted() -> None:
    """It has 107 bytes with its line ending."""
    line = b"PROXY UNKNOWN" + b" " * 92 + b"\r\n"
    assert (len(line), parsed(line)) == (107, (None, None, ""))


def test_an_ipv4_mapped_address_is_canonical() -> None:
    """In whatever form it is sent."""
    assert parsed(b"PROXY TCP6 0:0::ffff:c000:0201 ::1 1 2\r\n")[0] == ("::ffff:192.0.2.1", 1)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (
            SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
            "unknown version or command in the PROXY header",
        ),
        (
            SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),
            "unknown version or command in the PROXY header",
        ),
        (SIGNATURE + b"\x21\x41\0\0", "unknown address family in the PROXY header"),
        (
            SIGNATURE + b"\x21\x12\0\x0c" + bytes(12),
            "the transport in the PROXY header is not STREAM",
        ),
        (
            SIGNATURE + b"\x21\x13\0\x0c" + bytes(12),
            "the transport in the PROXY header is not STREAM",
        ),
        (
            SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
            "PROXY header too short for its addresses",
        ),
        (
            SIGNATURE + b"\x21\x21\0\x23" + bytes(35),
            "PROXY header too short for its addresses",
        ),
        (
            SIGNATURE + b"\x21\x31\0\xd7" + bytes(215),
            "PROXY header too short for its addresses",
        ),
        (SIGNATURE + b"\x21\x11\x08\x01", "PROXY header longer than 2064 bytes"),
        (SIGNATURE + b"\x20\x00\xff\xff", "PROXY header longer than 2064 bytes"),
        (version_2(TCP4, b"\x05"), "truncated TLV in the PROXY header"),
        (version_2(TCP4, b"\x05\0"), "truncated TLV in the PROXY header"),
        (version_2(TCP4, b"\x05\0\x02a"), "truncated TLV in the PROXY header"),
        (version_2(TCP4, tlv(4, b"") + b"\xee\xff\xff"), "truncated TLV in the PROXY header"),
        (version_2(TCP4, tlv(5, b"a") * 2), "duplicate TLV in the PROXY header"),
        (version_2(TCP4, tlv(5, b"a" * 129)), "unique id longer than 128 bytes"),
        (version_2(TCP4, tlv(3, bytes(4))), "wrong CRC-32C in the PROXY header"),
        (version_2(TCP4, tlv(3, bytes(3))), "wrong CRC-32C in the PROXY header"),
        (version_2(TCP4, tlv(3, b"")), "wrong CRC-32C in the PROXY header"),
    ],
)
def test_a_binary_header_that_violates_the_specification_is_an_error(
    header: bytes, why: str
) -> None:
    """Lengths, families and checksums are checked."""
    assert error_of(header) == why


@pytest.mark.parametrize(
    "header",
    [
        LOCAL,
        SIGNATURE + b"\x20\x11\0\x0c" + bytes(12),
        SIGNATURE + b"\x20\xff\0\x03abc",
        SIGNATURE + b"\x21\x00\0\0",
        SIGNATURE + b"\x21\x10\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x01\0\0",
        b"PROXY UNKNOWN\r\n",
    ],
)
def test_a_header_without_an_address_has_no_peer(header: bytes) -> None:
    """LOCAL, UNKNOWN, and an unspecified family or transport."""
    assert parsed(header) == (None, None, "")


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (b"/run/x.sock", "/run/x.sock"),
        (b"", ""),
        (b"\0hidden", "@hidden"),
        (b'/a"b\\c d\xff\n', "/a_b_c_d__"),
        (b"/$(id);`x`|&<>*?[]{}~#!'%", "/__id___x________________"),
        (b"/AZaz09._-@:+,=", "/AZaz09._-@:+,="),
        (b"/a\0b", "/a"),
        (b"x" * 108, "x" * 108),
    ],
)
def test_the_path_of_a_unix_peer_is_plain_ascii(address: bytes, path: str) -> None:
    """Other bytes are replaced: a path must not forge log lines, or commands of a shell."""
    assert parsed(version_2(UNIX, address=address))[:2] == (None, path)


@pytest.mark.parametrize("family", [TCP4, TCP6, UNIX, None])
def test_a_unique_id_is_found_among_the_tlvs(family: tuple[str, int] | None) -> None:
    """With or without a checksum, behind addresses of any family."""
    more = tlv(1, b"h2") + tlv(5, b'a"\n\xff') + tlv(0x20, bytes(300))
    for header in (version_2(family, more), with_checksum(version_2(family, more))):
        assert parsed(header)[2] == 'a"\\x0a\\xff'


@given(ipv6)
def test_an_address_is_what_another_library_parses(text: str) -> None:
    """Here, `ipaddress`."""
    peer = parse(version_1((text, 1))).peer
    assert peer is not None
    assert ipaddress.ip_address(peer[0]) == ipaddress.ip_address(text)
