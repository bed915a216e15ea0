"""Headers of the PROXY protocol, built from its specification without tetrad's code."""

from __future__ import annotations

import socket

from tetrad.protocol.proxy import crc32c

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

LOCAL = SIGNATURE + b"\x20\0\0\0"
"""The header that a balancer sends before a health check."""

TCP4 = ("203.0.113.7", 38276)
TCP6 = ("2001:db8::7", 38276)
UNIX = ("unix", 0)

CHECKSUM = 3


def tlv(kind: int, value: bytes) -> bytes:
    """Return one TLV (type, length, value), as it follows the addresses."""
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def version_1(peer: tuple[str, int]) -> bytes:
    """Return a version 1 header (a text line) for a client."""
    host, port = peer
    family, to = ("TCP6", "::1") if ":" in host else ("TCP4", "127.0.0.1")
    return f"PROXY {family} {host} {to} {port} 65000\r\n".encode()


def version_2(peer: tuple[str, int] | None, tlvs: bytes = b"", address: bytes = b"") -> bytes:
    """Return a version 2 (binary) header for a client. None as the client means no address."""
    if peer is None:
        family, addresses = b"\0", b""
    elif peer == UNIX:
        family, addresses = b"\x31", address.ljust(108, b"\0") + bytes(108)
    else:
        host, port = peer
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        family = b"\x21" if ":" in host else b"\x11"
        source = socket.inet_pton(address_family, host)
        addresses = source + bytes(len(source)) + port.to_bytes(2, "big") + b"\xfd\xe8"
    rest = addresses + tlvs
    return SIGNATURE + b"\x21" + family + len(rest).to_bytes(2, "big") + rest


def with_checksum(header: bytes) -> bytes:
    """Return a version 2 header with a CRC-32C checksum TLV appended."""
    rest = header[16:] + tlv(CHECKSUM, bytes(4))
    blank = header[:14] + len(rest).to_bytes(2, "big") + rest
    return blank[:-4] + crc32c(blank).to_bytes(4, "big")
