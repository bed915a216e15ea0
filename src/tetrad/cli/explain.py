"""Whether a client from there would be let in: by which rule, and how near to which limit."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from tetrad.config.types import Duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.config.result import ConfigResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AdmissionReport(Struct, frozen=True):
    """What a running daemon says of an address; None is no limit.

    `rate_limit` is a count and its seconds, `wait` the seconds until the next may come.
    """

    access: bool
    clients: int
    clients_limit: int
    from_source: int
    from_source_limit: int | None
    rate_limit: tuple[int, int] | None
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


def explain(loaded: ConfigResult, address: Address, outlook: AdmissionReport | None) -> Verdict:
    """Judge an address by the file and, if a daemon runs, by what that one says, which decides."""
    allowed, access = _access(loaded, address)
    if outlook is None:
        findings = [(allowed, access), (True, "no daemon runs, so no limit is near")]
    elif outlook.access == allowed:
        findings = [(allowed, access), *_limits(loaded, outlook)]
    else:
        word = "lets it in" if outlook.access else "keeps it out"
        change = f"{access}; but the daemon, not reloaded since, {word}"
        findings = [(outlook.access, change), *_limits(loaded, outlook)]
    if outlook is not None and _has_other_limits(loaded, outlook):
        findings.append((True, "the daemon has other limits than the file: tetrad reload"))
    verdict = all(fine for fine, _ in findings)
    lines = [f"  {'ok' if fine else 'NO'}  {text}" for fine, text in findings]
    return Verdict(verdict, [f"{address}: {'let in' if verdict else 'refused'}", *lines])


def _access(loaded: ConfigResult, address: Address) -> tuple[bool, str]:
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


def _rules(loaded: ConfigResult) -> Iterator[Rule]:
    access = loaded.config.access
    for key, networks in (("allow", access.allow), ("deny", access.deny)):
        for index, network in enumerate(networks):
            place = _place(loaded, f"access.{key}[{index}]")
            yield Rule(ipaddress.ip_network(network), key == "allow", place)


def _limits(loaded: ConfigResult, outlook: AdmissionReport) -> Iterator[tuple[bool, str]]:
    place = _place(loaded, "limits.clients")
    text = f"clients: {outlook.clients} of {outlook.clients_limit} are in ({place})"
    yield outlook.clients < outlook.clients_limit, text
    here, limit = outlook.from_source, outlook.from_source_limit
    if limit is not None:
        place = _place(loaded, "limits.clients_per_source")
        yield here < limit, f"clients from this source: {here} of {limit} ({place})"
    if outlook.rate_limit is not None:
        place = _place(loaded, "limits.rate_per_source")
        count, seconds = outlook.rate_limit
        rate = f"{count} in {Duration(seconds)}"
        wait = f"the next may come in {outlook.wait:.1f} s" if outlook.wait else "one more may come"
        yield not outlook.wait, f"rate from this source: {rate}, {wait} ({place})"


def _has_other_limits(loaded: ConfigResult, outlook: AdmissionReport) -> bool:
    limits = loaded.config.limits
    rate = limits.rate_per_source
    return (outlook.clients_limit, outlook.from_source_limit, outlook.rate_limit) != (
        limits.clients,
        limits.clients_per_source,
        None if rate is None else (rate.number, rate.seconds),
    )


def _place(loaded: ConfigResult, key: str) -> str:
    if key in loaded.given:
        return f"{key}, {loaded.file}:{loaded.given[key]}"
    return f"{key}, by default"
