"""The PROXY protocol's header: whatever pieces it comes in, it says the same, or it is refused."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy_headers import (
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
from tetrad.protocol.proxy import HeaderError, crc32c, extent, parse

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

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


def said(header: bytes) -> tuple[object, ...]:
    """Return what a whole header says. Raises HeaderError."""
    assert extent(header) == (len(header), True)
    read = parse(header)
    return read.peer, read.path, read.unique_id


def complaint(data: bytes) -> str:
    """Return why something is no header."""
    with pytest.raises(HeaderError) as error:
        said(data)
    return str(error.value)


def same(text: str) -> str:
    """Return an address as the system writes it."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, text))


@given(peers)
def test_both_versions_tell_of_the_same_peer(peer: tuple[str, int]) -> None:
    """An address and a port, of either kind, in a line or in binary."""
    expected = ((same(peer[0]), peer[1]), None, "")
    assert said(version_1(peer)) == said(version_2(peer)) == expected


@given(headers, st.binary(max_size=40))
def test_any_cutting_of_a_header_finds_its_end(header: bytes, behind: bytes) -> None:
    """Every beginning of it is all its own and not enough; what stands behind it is not its own."""
    for end in range(len(header)):
        assert extent(header[:end]) == (end, False)
    assert extent(header + behind) == (len(header), True)


@given(st.one_of(st.binary(max_size=80), st.tuples(headers, st.binary(max_size=9)).map(b"".join)))
@example(b"PROXY \r\n")
@example(b"\r\n")
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Whatever comes, it is a header, the beginning of one, or refused."""
    with contextlib.suppress(HeaderError):
        size, is_whole = extent(data)
        assert 0 <= size <= len(data)
        if is_whole:
            parse(data[:size])


@given(peers, st.integers(0, 200), st.integers(0, 255))
def test_a_byte_that_was_changed_is_noticed_by_the_checksum(
    peer: tuple[str, int], at: int, byte: int
) -> None:
    """Addresses with a checksum are what they were when they were sent, or refused."""
    header = with_checksum(version_2(peer, tlv(5, b"id")))
    changed = bytearray(header)
    changed[16 + at % (len(header) - 16 - len(tlv(5, b"id")) - len(tlv(3, bytes(4))))] = byte
    if bytes(changed) == header:
        assert said(header) == ((same(peer[0]), peer[1]), None, "id")
    else:
        with pytest.raises(HeaderError):
            parse(bytes(changed))


def test_the_checksum_is_castagnoli_s() -> None:
    """The check value that everybody's CRC-32C has, and those of RFC 3720."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_the_signature_is_that_of_the_specification() -> None:
    """Twelve bytes that no other protocol begins with."""
    assert proxy.SIGNATURE_2 == bytes.fromhex("0d0a0d0a000d0a515549540a") == SIGNATURE


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
def test_lines_of_the_specification_are_headers(line: str) -> None:
    """The longest of each kind, the shortest, and what need not be looked at."""
    assert len(said(line.encode() + b"\r\n")) == 3


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"time", "it does not begin with a PROXY header"),
        (b"proxy TCP4", "it does not begin with a PROXY header"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "the line does not end as a PROXY header does"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r \n", "the line does not end as a PROXY header does"),
        (b"PROXY \r\n", "it is not PROXY TCP4 or TCP6, two addresses and two ports"),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "it is not PROXY TCP4"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "it is not PROXY TCP4"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "it is not PROXY TCP4"),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "it is not PROXY TCP4"),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", "::1 is no address of its family"),
        (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "1.2.3.4 is no address of its family"),
        (b"PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n", "1.2.3 is no address of its family"),
        (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", "01.2.3.4 is no address of its family"),
        (b"PROXY TCP4 1.2.3.\xff 1.2.3.4 1 2\r\n", "1.2.3.\\xff is no address of its family"),
        (b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "fe80::1%lo is no address of its family"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "65536 is no port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n", "02 is no port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 00 2\r\n", "00 is no port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", "-1 is no port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "+1 is no port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1_0 2\r\n", "1_0 is no port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 \xb2 2\r\n", "\\xb2 is no port"),
        (b"PROXY UNKNOWN" + b" " * 93 + b"\r\n", "the line is longer than 107 bytes"),
        (b"PROXY UNKNOWN" + b" " * 94, "the line is longer than 107 bytes"),
    ],
)
def test_a_line_that_is_not_to_the_letter_is_refused(line: bytes, why: str) -> None:
    """Nothing is guessed at, and what is wrong is told."""
    assert complaint(line).startswith(why)


def test_the_longest_line_is_read() -> None:
    """It has 107 bytes with its end."""
    line = b"PROXY UNKNOWN" + b" " * 92 + b"\r\n"
    assert (len(line), said(line)) == (107, (None, None, ""))


def test_an_ipv4_address_in_an_ipv6_one_is_written_as_everybody_does() -> None:
    """However it is put, it can be recognised as an IPv4 client."""
    assert said(b"PROXY TCP6 0:0::ffff:c000:0201 ::1 1 2\r\n")[0] == ("::ffff:192.0.2.1", 1)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (SIGNATURE + b"\x11\x11\0\x0c" + bytes(12), "its version or command is unknown"),
        (SIGNATURE + b"\x22\x11\0\x0c" + bytes(12), "its version or command is unknown"),
        (SIGNATURE + b"\x21\x41\0\0", "its family of addresses is unknown"),
        (SIGNATURE + b"\x21\x12\0\x0c" + bytes(12), "it does not tell of a stream"),
        (SIGNATURE + b"\x21\x13\0\x0c" + bytes(12), "it does not tell of a stream"),
        (SIGNATURE + b"\x21\x11\0\x0b" + bytes(11), "it is too short for its addresses"),
        (SIGNATURE + b"\x21\x21\0\x23" + bytes(35), "it is too short for its addresses"),
        (SIGNATURE + b"\x21\x31\0\xd7" + bytes(215), "it is too short for its addresses"),
        (SIGNATURE + b"\x21\x11\x08\x01", "it is longer than 2064 bytes"),
        (SIGNATURE + b"\x20\x00\xff\xff", "it is longer than 2064 bytes"),
        (version_2(TCP4, b"\x05"), "something in it is cut short"),
        (version_2(TCP4, b"\x05\0"), "something in it is cut short"),
        (version_2(TCP4, b"\x05\0\x02a"), "something in it is cut short"),
        (version_2(TCP4, tlv(4, b"") + b"\xee\xff\xff"), "something in it is cut short"),
        (version_2(TCP4, tlv(5, b"a") * 2), "something is in it twice"),
        (version_2(TCP4, tlv(5, b"a" * 129)), "its unique id is longer than 128 bytes"),
        (version_2(TCP4, tlv(3, bytes(4))), "its checksum is wrong"),
        (version_2(TCP4, tlv(3, bytes(3))), "its checksum is wrong"),
        (version_2(TCP4, tlv(3, b"")), "its checksum is wrong"),
    ],
)
def test_a_binary_header_that_is_not_to_the_letter_is_refused(header: bytes, why: str) -> None:
    """Lengths, families and checksums are held against each other."""
    assert complaint(header) == why


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
def test_where_nothing_is_told_the_connection_s_own_address_counts(header: bytes) -> None:
    """LOCAL, UNKNOWN, and a family or a transport that is not told."""
    assert said(header) == (None, None, "")


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (b"/run/x.sock", "/run/x.sock"),
        (b"", ""),
        (b"\0hidden", "@hidden"),
        (b'/a"b\\c d\xff\n', "/a?b?c?d??"),
        (b"/a\0b", "/a"),
        (b"x" * 108, "x" * 108),
    ],
)
def test_a_unix_peer_has_a_path_that_forges_nothing(address: bytes, path: str) -> None:
    """What is not plain in it is not shown as it is."""
    assert said(version_2(UNIX, address=address))[:2] == (None, path)


@pytest.mark.parametrize("family", [TCP4, TCP6, UNIX, None])
def test_a_unique_id_is_taken_from_behind_the_addresses(family: tuple[str, int] | None) -> None:
    """Among other tlvs, with or without a checksum, wherever the addresses end."""
    more = tlv(1, b"h2") + tlv(5, b'a"\n\xff') + tlv(0x20, bytes(300))
    for header in (version_2(family, more), with_checksum(version_2(family, more))):
        assert said(header)[2] == 'a"\\x0a\\xff'


@given(ipv6)
def test_an_address_is_the_same_to_others(text: str) -> None:
    """What is read is what another library reads."""
    peer = parse(version_1((text, 1))).peer
    assert peer is not None
    assert ipaddress.ip_address(peer[0]) == ipaddress.ip_address(text)
