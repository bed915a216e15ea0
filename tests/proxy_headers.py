"""Headers of the PROXY protocol, written by hand from its specification."""

from __future__ import annotations

import socket

from tetrad.protocol.proxy import crc32c

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

LOCAL = SIGNATURE + b"\x20\0\0\0"
"""What a balancer says that only looks whether we live."""

TCP4 = ("203.0.113.7", 38276)
TCP6 = ("2001:db8::7", 38276)
UNIX = ("unix", 0)

CHECKSUM = 3
UNIQUE_ID = 5


def thing(kind: int, value: bytes) -> bytes:
    """Return a thing behind the addresses: type, length, value."""
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def version_1(peer: tuple[str, int]) -> bytes:
    """Return a line about a peer."""
    host, port = peer
    family, to = ("TCP6", "::1") if ":" in host else ("TCP4", "127.0.0.1")
    return f"PROXY {family} {host} {to} {port} 65000\r\n".encode()


def version_2(peer: tuple[str, int] | None, things: bytes = b"", address: bytes = b"") -> bytes:
    """Return a binary header about a peer; with None nothing is told."""
    if peer is None:
        family, addresses = b"\0", b""
    elif peer == UNIX:
        family, addresses = b"\x31", address.ljust(108, b"\0") + bytes(108)
    else:
        host, port = peer
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        family = b"\x21" if ":" in host else b"\x11"
        source = socket.inet_pton(kind, host)
        addresses = source + bytes(len(source)) + port.to_bytes(2, "big") + b"\xfd\xe8"
    rest = addresses + things
    return SIGNATURE + b"\x21" + family + len(rest).to_bytes(2, "big") + rest


def checked(header: bytes) -> bytes:
    """Return a binary header with a checksum at its end."""
    rest = header[16:] + thing(CHECKSUM, bytes(4))
    blank = header[:14] + len(rest).to_bytes(2, "big") + rest
    return blank[:-4] + crc32c(blank).to_bytes(4, "big")
