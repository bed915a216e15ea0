"""Clients' addresses: how they are shown, and as the numbers that admission reckons with."""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.admission import Source

_MAPPED = "::ffff:"


def read(family: str, peer: object, serial: int) -> tuple[str, Source | None]:
    """Return a peer's name for the log, and its address as bits and number; None for a Unix socket.

    `peer` is as accept(2) gave it. A client of a dual-stack socket that came by IPv4 is an IPv4
    client. Unix peers have no name of their own, so they are told apart by `serial`.
    """
    if not isinstance(peer, tuple):
        return f"unix:{serial}", None
    host, port = peer[0].partition("%")[0], peer[1]
    if family == "inet6" and not (host.startswith(_MAPPED) and "." in host):
        number = int.from_bytes(_socket.inet_pton(_socket.AF_INET6, host), "big")
        return f"[{host}]:{port}", (128, number)
    host = host.removeprefix(_MAPPED)
    return f"{host}:{port}", (32, int.from_bytes(_socket.inet_aton(host), "big"))
