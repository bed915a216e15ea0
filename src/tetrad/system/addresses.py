"""Addresses: of clients as text for the log and as numbers for limits, of listeners to bind to."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, if_nametoindex, inet_ntop, inet_pton
from errno import ENODEV

Source = tuple[int, int]
"""A client's address as limits count it: its length in bits (32 or 128), and its value."""

_MAPPED = "::ffff:"
_MAPPED_PREFIX = 0xFFFF
IPV4_BITS, IPV6_BITS = 32, 128
_IPV4_MASK = (1 << IPV4_BITS) - 1


def parse(text: str) -> Source:
    """Parse an IPv4 or IPv6 address. Raises OSError.

    An IPv4-mapped IPv6 address is returned as the IPv4 address.
    """
    if ":" not in text:
        return IPV4_BITS, int.from_bytes(inet_pton(AF_INET, text), "big")
    number = int.from_bytes(inet_pton(AF_INET6, text), "big")
    if number >> IPV4_BITS == _MAPPED_PREFIX:
        return IPV4_BITS, number & _IPV4_MASK
    return IPV6_BITS, number


def to_bind(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return what bind(2) takes for an address, which may name its interface: `fe80::1%eth0`.

    Raises OSError if there is no such interface.
    """
    host, _, interface = address.partition("%")
    return (host, port, 0, _index_of(interface)) if interface else (address, port)


def exclude_each_other(one: str, other: str) -> bool:
    """Tell whether a listener at an address excludes one at another address with the same port.

    `::` is dual-stack.
    """
    addresses = {one, other}
    if len(addresses) == 1 or "::" in addresses:
        return True
    if ":" in one or ":" in other:
        return _is_same_interface(one, other)
    return "0.0.0.0" in addresses  # noqa: S104 - a name


def _is_same_interface(one: str, other: str) -> bool:
    """Tell whether two link-local addresses are the same, by the name and the number of a link."""
    try:
        return "%" in one and "%" in other and to_bind(one, 0) == to_bind(other, 0)
    except OSError:
        return False


def _index_of(interface: str) -> int:
    """Return the number of an interface. Raises OSError."""
    if interface.isdecimal():
        return int(interface)
    try:
        return if_nametoindex(interface)
    except OSError:
        raise OSError(ENODEV, f"there is no network interface {interface}") from None


def network_text(bits: int, network: int, prefix: int) -> str:
    """Return a network in CIDR notation."""
    family = AF_INET if bits == IPV4_BITS else AF_INET6
    return f"{inet_ntop(family, network.to_bytes(bits // 8, 'big'))}/{prefix}"


def parse_peer(peer: object, serial: int) -> tuple[str, Source | None]:
    """Return a peer's name for the log, and its source; a peer of a Unix socket has no source.

    `peer` is the address that accept(2) returned. An IPv4-mapped address, which a dual-stack socket
    returns for an IPv4 client, becomes an IPv4 address. A peer of a Unix socket has no address of
    its own, so its name contains `serial`.
    """
    if not isinstance(peer, tuple):
        return f"unix:{serial}", None
    host, port = peer[0], peer[1]
    if ":" not in host:  # the common case is short: every page touched here is copied by a fork
        return f"{host}:{port}", (IPV4_BITS, int.from_bytes(inet_pton(AF_INET, host), "big"))
    host = host.partition("%")[0]
    source = parse(host)
    host = host.removeprefix(_MAPPED) if source[0] == IPV4_BITS else f"[{host}]"
    return f"{host}:{port}", source


def source_of_name(name: str) -> Source | None:
    """Return the source of a peer by the name that `parse_peer` gave it."""
    host = name.rpartition(":")[0].strip("[]")
    return None if name.startswith("unix:") else parse(host)
