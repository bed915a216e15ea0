"""Clients' addresses: how they are shown, and as the numbers that admission reckons with."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

Source = tuple[int, int]
"""An address as admission counts it: 32 or 128 bits, and the address as a number."""

_MAPPED = "::ffff:"
_MAPPED_PREFIX = 0xFFFF
_IPV4_BITS, _IPV6_BITS = 32, 128
_IPV4_MASK = (1 << _IPV4_BITS) - 1


def parse(text: str) -> Source:
    """Read an address; an IPv6 one that stands for an IPv4 one is that. Raises OSError."""
    if ":" not in text:
        return _IPV4_BITS, int.from_bytes(inet_pton(AF_INET, text), "big")
    number = int.from_bytes(inet_pton(AF_INET6, text), "big")
    if number >> _IPV4_BITS == _MAPPED_PREFIX:
        return _IPV4_BITS, number & _IPV4_MASK
    return _IPV6_BITS, number


def parse_peer(peer: object, serial: int) -> tuple[str, Source | None]:
    """Return a peer's name for the log, and its address as bits and number; a Unix peer has none.

    `peer` is as accept(2) gave it. A client of a dual-stack socket that came by IPv4 is an IPv4
    client. Unix peers have no name of their own, so they are told apart by `serial`.
    """
    if not isinstance(peer, tuple):
        return f"unix:{serial}", None
    host, port = peer[0], peer[1]
    if ":" not in host:  # the shortest way for most: what is touched here, each fork copies
        return f"{host}:{port}", (_IPV4_BITS, int.from_bytes(inet_pton(AF_INET, host), "big"))
    host = host.partition("%")[0]
    source = parse(host)
    host = host.removeprefix(_MAPPED) if source[0] == _IPV4_BITS else f"[{host}]"
    return f"{host}:{port}", source
