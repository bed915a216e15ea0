"""`tetrad explain`: whether a client of an address would be let in now, and why.

If the daemon runs, it decides. The file then only shows where a rule is, and whether it has changed
since the daemon read it.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from msgspec import UNSET

from tetrad.cli.configuration import load, running_pid
from tetrad.cli.exit_status import FAILURE, OK, STATUS_UNKNOWN, CommandError
from tetrad.config.types import Duration, unmapped
from tetrad.ipc import control_client
from tetrad.ipc.access_list import AccessList
from tetrad.ipc.control_messages import AdmissionReport
from tetrad.launch import runtime_config
from tetrad.system import addresses

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tetrad.config.result import ConfigResult
    from tetrad.ipc.runtime_config import AccessRule

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Finding(NamedTuple):
    """What one check of the admission gives: whether the client passes, and why."""

    passes: bool
    text: str


def explain(options: argparse.Namespace) -> int:
    """Print whether a client of an address would be let in, and the finding of each check."""
    result = load(options).checked()
    address = unmapped(options.address)
    access_list = AccessList(runtime_config.access_rules(result.config.access))
    source = addresses.parse(str(address))
    rule, allowed = access_list.rule(*source), access_list.allows(*source)
    access = Finding(allowed, _access_text(result, rule, allowed=allowed))
    has_changed = False
    if running_pid(result) is None:
        findings = [access, Finding(passes=True, text="limits: not checked, no daemon is running")]
    else:
        report = _ask_daemon(result, address)
        name = None if rule is None else rule["name"]
        if report.access != allowed or report.rule not in {name, UNSET}:
            access, has_changed = _access_of_daemon(report), True
        findings = [access, *_limits(result, report)]
        has_changed = has_changed or _has_other_limits(result, report)
    is_let_in = all(finding.passes for finding in findings)
    print(f"{address}: {'let in' if is_let_in else 'refused'}")
    for finding in findings:
        print(f"  {'ok' if finding.passes else 'NO'}  {finding.text}")
    if has_changed:
        print("the file has changed since the last reload; tetrad reload applies it")
    return OK if is_let_in else FAILURE


def _ask_daemon(result: ConfigResult, address: Address) -> AdmissionReport:
    try:
        return control_client.ask(
            result.config.daemon.control, f"source {address}", AdmissionReport
        )
    except control_client.ControlError as error:
        raise CommandError(str(error), STATUS_UNKNOWN) from None


def _access_text(result: ConfigResult, rule: AccessRule | None, *, allowed: bool) -> str:
    """Return how the access lists of the file decide, and where the rule is."""
    if rule is not None:
        kinds = {32: ipaddress.IPv4Network, 128: ipaddress.IPv6Network}
        network = kinds[rule["bits"]]((rule["network"], rule["prefix"]))
        word = "allowed" if allowed else "denied"
        return f"access: {word} by {network} ({_location(result, rule['name'])})"
    if allowed:
        return "access: allowed, no rule matches and access.allow is empty"
    return f"access: denied, no rule matches ({_location(result, 'access.allow')})"


def _access_of_daemon(report: AdmissionReport) -> Finding:
    """Return how the access lists of the daemon decide, which are not those of the file."""
    word = "allowed" if report.access else "denied"
    if report.rule is UNSET:
        text = f"{word} by the running daemon"
    elif report.rule is None:
        text = f"{word}, no rule of the running daemon matches"
    else:
        text = f"{word} by {report.rule} of the running daemon"
    return Finding(report.access, f"access: {text}")


def _limits(result: ConfigResult, report: AdmissionReport) -> Iterator[Finding]:
    where = _location(result, "limits.clients")
    text = f"clients: {report.clients} of {report.clients_limit} connected ({where})"
    yield Finding(report.clients < report.clients_limit, text)
    count, limit = report.from_source, report.from_source_limit
    if limit is not None:
        where = _location(result, "limits.clients_per_source")
        text = f"clients of this source: {count} of {limit} connected ({where})"
        yield Finding(count < limit, text)
    if report.rate_limit is not None:
        where = _location(result, "limits.rate_per_source")
        sessions, seconds = report.rate_limit
        rate = f"{sessions} sessions in {Duration(seconds)}"
        wait = f"the next one in {report.wait:.1f} s" if report.wait else "not used up"
        yield Finding(not report.wait, f"rate of this source: {rate}, {wait} ({where})")


def _has_other_limits(result: ConfigResult, report: AdmissionReport) -> bool:
    """Tell whether the limits of the daemon are not those of the file."""
    limits = result.config.limits
    rate = limits.rate_per_source
    return (report.clients_limit, report.from_source_limit, report.rate_limit) != (
        limits.clients,
        limits.clients_per_source,
        None if rate is None else (rate.number, rate.seconds),
    )


def _location(result: ConfigResult, key: str) -> str:
    """Return a key and its line in the file."""
    if key in result.key_lines:
        return f"{key}, {result.file}:{result.key_lines[key]}"
    return f"{key}, default"
