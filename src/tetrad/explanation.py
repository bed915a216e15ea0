"""Whether a client from there would be let in: by which rule, and how near to which limit."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.configfile import Loaded

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Outlook(Struct, frozen=True):
    """What a running daemon says of an address; `wait` is in seconds, None is no limit."""

    access: bool
    clients: int
    clients_limit: int
    from_source: int
    from_source_limit: int | None
    wait: float


class Verdict(NamedTuple):
    """Whether a client would be let in, and why, in lines for a person."""

    allowed: bool
    lines: list[str]


class Rule(NamedTuple):
    """A network of one of the two lists, and where it stands."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    allow: bool
    place: str


def explain(loaded: Loaded, address: Address, outlook: Outlook | None) -> Verdict:
    """Judge an address by the file and, if a daemon runs, by what that one says."""
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    allowed, access = _access(loaded, address)
    findings = [(allowed, access)]
    if outlook is None:
        findings.append((True, "no daemon runs: the limits are free"))
    else:
        findings += _limits(loaded, outlook)
        if outlook.access != allowed:
            findings.append((outlook.access, "the daemon has other access lists: tetrad reload"))
    verdict = all(fine for fine, _ in findings)
    lines = [f"  {'ok' if fine else 'NO'}  {text}" for fine, text in findings]
    return Verdict(verdict, [f"{address}: {'let in' if verdict else 'refused'}", *lines])


def _access(loaded: Loaded, address: Address) -> tuple[bool, str]:
    matches = [rule for rule in _rules(loaded) if address in rule.network]
    if matches:
        # The most specific, and of two that are alike the one that denies.
        best = max(matches, key=lambda rule: (rule.network.prefixlen, not rule.allow))
        word = "allowed" if best.allow else "denied"
        return best.allow, f"access: {word} by {best.network} ({best.place})"
    if loaded.config.access.allow:
        place = _place(loaded, "access.allow")
        return False, f"access: none of the networks of access.allow ({place})"
    return True, "access: no rule names it, and nothing says that only some may come"


def _rules(loaded: Loaded) -> Iterator[Rule]:
    access = loaded.config.access
    for key, networks in (("allow", access.allow), ("deny", access.deny)):
        for index, network in enumerate(networks):
            place = _place(loaded, f"access.{key}[{index}]")
            yield Rule(ipaddress.ip_network(network), key == "allow", place)


def _limits(loaded: Loaded, outlook: Outlook) -> Iterator[tuple[bool, str]]:
    place = _place(loaded, "limits.clients")
    text = f"clients: {outlook.clients} of {outlook.clients_limit} are in ({place})"
    yield outlook.clients < outlook.clients_limit, text
    here, limit = outlook.from_source, outlook.from_source_limit
    if limit is not None:
        place = _place(loaded, "limits.clients_per_source")
        yield here < limit, f"clients from this source: {here} of {limit} ({place})"
    rate = loaded.config.limits.rate_per_source
    if rate is not None:
        place = _place(loaded, "limits.rate_per_source")
        wait = f"the next may come in {outlook.wait:.1f} s" if outlook.wait else "one more may come"
        yield not outlook.wait, f"rate from this source: {rate}, {wait} ({place})"


def _place(loaded: Loaded, key: str) -> str:
    if key in loaded.given:
        return f"{key}, {loaded.file}:{loaded.given[key]}"
    return f"{key}, by default"
