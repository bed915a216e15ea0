"""`tetrad explain`: whether a client of an address would be let in now, and why.

If the daemon runs, it decides, by the file that it has read. The line of a rule is only known if
that file has not changed since.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import UNSET

from tetrad.cli.configuration import load_for_running, look_for_daemon
from tetrad.cli.exit_status import FAILURE, OK, STATUS_UNKNOWN, CommandError, print_line
from tetrad.config.types import Duration, unmapped
from tetrad.ipc import control_client
from tetrad.ipc.access_list import AccessList, listener_report
from tetrad.ipc.control_messages import AdmissionReport
from tetrad.launch import running_daemon, runtime_config
from tetrad.system import addresses

if TYPE_CHECKING:
    import argparse
    import ipaddress
    from collections.abc import Iterator

    from tetrad.config.result import ConfigResult
    from tetrad.ipc.control_messages import ListenerReport

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FAMILIES = {4: "inet", 6: "inet6"}
_MARKS = {True: "ok", False: "NO", None: "--"}


class Finding(NamedTuple):
    """What one check of the admission gives: whether the client passes, and why.

    None: the check does not apply to this address.
    """

    passes: bool | None
    text: str


class Source(NamedTuple):
    """The configuration that decides: the file's, or what the daemon has read from it before."""

    result: ConfigResult
    is_current: bool
    """Whether the file is still what the daemon has read."""

    def location(self, key: str) -> str:
        """Return a key and its line in the file."""
        if not self.is_current:
            return f"{key} of the running daemon"
        if key in self.result.key_lines:
            return f"{key}, {self.result.file}:{self.result.key_lines[key]}"
        return f"{key}, default"


def explain(options: argparse.Namespace) -> int:
    """Print whether a client of an address would be let in, and the finding of each check."""
    result = load_for_running(options, "daemon.pidfile", "daemon.control")
    address = unmapped(options.address)
    if look_for_daemon(result) is None:
        report = _report_of_file(result.checked(), address)
        source = Source(result, is_current=True)
        limits = [Finding(passes=True, text="limits: not checked, no daemon is running")]
    else:
        report = _ask_daemon(result, address)
        is_current = (report.config, report.checksum) == (_shown(result.file), result.checksum)
        source = Source(result, is_current)
        limits = [*_limits(source, report)]
    findings = [_access(source, report), *limits]
    passes = all(finding.passes for finding in findings)
    listeners = [*_listeners(source, report, address, passes=passes)]
    verdict = _verdict(report, passes=passes)
    print_line(f"{address}: {verdict}")
    for finding in [*findings, *listeners]:
        print_line(f"  {_MARKS[finding.passes]}  {finding.text}")
    if not source.is_current and report.checksum is not UNSET:
        print_line(_difference(result, report))
    return FAILURE if verdict == "refused" else OK


def _ask_daemon(result: ConfigResult, address: Address) -> AdmissionReport:
    try:
        return running_daemon.ask(result.config.daemon, f"source {address}", AdmissionReport)
    except control_client.ControlError as error:
        raise CommandError(str(error), STATUS_UNKNOWN) from None


def _report_of_file(result: ConfigResult, address: Address) -> AdmissionReport:
    """Return the report of a daemon that would start with the file now; without limits."""
    config = runtime_config.build(result, None, foreground=False)
    source = addresses.parse(str(address))
    access = AccessList(config["access"])
    answer = {
        "access": access.allows(*source),
        **access.report(source),
        "clients": 0,
        "clients_limit": 1,
        "from_source": 0,
        "from_source_limit": None,
        "rate_limit": None,
        "wait": 0.0,
        "config": config["file"],
        "checksum": config["checksum"],
        "listeners": [listener_report(one, one["name"], source) for one in config["listeners"]],
    }
    return msgspec.convert(answer, AdmissionReport)


def _verdict(report: AdmissionReport, *, passes: bool) -> str:
    """Return the whole result; `passes`: whether a client of the address is admitted."""
    if passes:
        is_direct = not report.listeners or any(not one.proxy for one in report.listeners)
        return "let in" if is_direct else "let in through a load balancer only"
    is_balancer = any(one.rule is not None for one in report.listeners)
    return "let in as a load balancer only" if is_balancer else "refused"


def _difference(result: ConfigResult, report: AdmissionReport) -> str:
    """Return how the file differs from what the daemon has read."""
    if report.config == _shown(result.file):
        return "the file has changed since the last reload; tetrad reload applies it"
    theirs, ours = report.config or "the built-in defaults", result.file or "these"
    return f"the daemon runs with {theirs}, not with {ours}"


def _shown(file: str | None) -> str | None:
    """Return the path of a file as the daemon reports it."""
    return file and os.fsencode(file).decode("utf-8", "backslashreplace")


def _access(source: Source, report: AdmissionReport) -> Finding:
    """Return how the access lists decide, and where the rule is."""
    word = "allowed" if report.access else "denied"
    if report.rule is UNSET:
        text = f"{word} by the running daemon"
    elif report.rule is not None:
        text = f"{word} by {report.network} ({source.location(report.rule)})"
    elif report.access:
        text = "allowed, no rule matches and access.allow is empty"
    else:
        text = f"denied, no rule matches ({source.location('access.allow')})"
    return Finding(report.access, f"access: {text}")


def _listeners(
    source: Source, report: AdmissionReport, address: Address, *, passes: bool
) -> Iterator[Finding]:
    """Yield a finding for each listener if they differ."""
    special = [_special(source, one, address) for one in report.listeners]
    if any(special):
        for one, finding in zip(report.listeners, special, strict=True):
            yes, text = finding or Finding(passes, "as above")
            yield Finding(yes, f"{one.name}: {text}")


def _special(source: Source, one: ListenerReport, address: Address) -> Finding | None:
    """Return what a listener does with the address, unless access and limits alone decide."""
    if one.family == "unix":
        return Finding(None, "the load balancer tells it" if one.proxy else "has no addresses")
    if one.family != _FAMILIES[address.version] and not one.name.startswith("[::]:"):
        return Finding(None, f"not reachable by IPv{address.version}")
    if not one.proxy:
        return None
    if one.rule is not None:
        where = source.location(f"{one.key}.{one.rule}")
        text = f"a load balancer by {one.network} ({where}); its header has the client"
        return Finding(passes=True, text=text)
    where = source.location(f"{one.key}.proxy.trusted")
    return Finding(passes=False, text=f"not a load balancer ({where}); behind one, as above")


def _limits(source: Source, report: AdmissionReport) -> Iterator[Finding]:
    where = source.location("limits.clients")
    text = f"clients: {report.clients} of {report.clients_limit} connected ({where})"
    yield Finding(report.clients < report.clients_limit, text)
    count, limit = report.from_source, report.from_source_limit
    if limit is not None:
        where = source.location("limits.clients_per_source")
        text = f"clients of this source: {count} of {limit} connected ({where})"
        yield Finding(count < limit, text)
    if limit is not None and report.crash_wait:
        text = f"crashes of this source's handlers: the next client in {report.crash_wait:.1f} s"
        yield Finding(passes=False, text=text)
    if report.rate_limit is not None:
        where = source.location("limits.rate_per_source")
        sessions, seconds = report.rate_limit
        rate = f"{sessions} sessions in {Duration(seconds)}"
        wait = f"the next one in {report.wait:.1f} s" if report.wait else "not used up"
        yield Finding(not report.wait, f"rate of this source: {rate}, {wait} ({where})")
