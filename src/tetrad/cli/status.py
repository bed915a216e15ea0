"""A daemon's status, written for people, for programs, and for Prometheus."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from tetrad.config.types import Duration
from tetrad.system.text import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.ipc.control_messages import Session, Status

TOP_CLIENTS = 5

OPENMETRICS_PREFIX = "tetrad"

Samples = dict[tuple[tuple[str, str], ...], float]
"""The values of a metric by their labels."""


def as_json(document: Any) -> str:  # noqa: ANN401 - anything that JSON can say
    """Return a status, or anything else, for programs."""
    return json.dumps(msgspec.to_builtins(document), indent=2)


def as_text(status: Status) -> str:
    """Return a status for people."""
    clients, handlers, log = status.clients, status.handlers, status.log
    started = datetime.fromtimestamp(status.started).astimezone()
    refused = ", ".join(f"{count} {reason}" for reason, count in status.refused.items() if count)
    lines = [
        f"tetrad {status.version}: {status.state} (pid {status.pid})",
        f"  since      {started:%Y-%m-%d %H:%M:%S %Z}, {span(status.uptime)} ago",
        *_upgrades(status),
        f"  config     {status.config or 'built-in defaults'}",
        *(f"  listening  {one.name} ({one.kind})" for one in status.listeners),
        f"  clients    {clients.now} now, {clients.peak} at most, {clients.limit} allowed",
        f"  handlers   {handlers.now} now, {handlers.idle} waiting, {handlers.lost} lost",
        f"  accepted   {status.accepted}",
        f"  refused    {refused or 'none'}",
        f"  log        {log.file or 'standard error'}: {log.written} written, {log.lost} lost",
    ]
    top = top_clients(status)
    if top:
        lines.append("  top        " + ", ".join(f"{host} ({count})" for host, count in top))
    return "\n".join(map(escape_unprintable, lines))


def _upgrades(status: Status) -> Iterator[str]:
    if status.upgraded is not None:
        moment = datetime.fromtimestamp(status.upgraded).astimezone()
        times = "once" if status.upgrades == 1 else f"{status.upgrades} times"
        yield f"  upgraded   {times}, at {moment:%Y-%m-%d %H:%M:%S %Z} to this version"


def as_sessions(status: Status) -> str:
    """Return a line for every session, the oldest first."""
    rows = [
        ("CONNECTION", "CLIENT", "SERVICE", "AGE", "PID"),
        *(
            (one.connection, one.client, one.service, span(one.age), str(one.pid))
            for one in sorted(status.sessions, key=lambda session: -session.age)
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(map(escape_unprintable, padded))


def as_openmetrics(status: Status) -> str:
    """Return a status in OpenMetrics' text format, as Prometheus' textfile collector reads it."""
    return "\n".join([*_metrics(status), "# EOF"])


def as_openmetrics_down() -> str:
    """Return what Prometheus is to read of a daemon that does not run."""
    return "\n".join([*_metric("up", "gauge", "Whether the daemon runs.", {(): 0}), "# EOF"])


def top_clients(status: Status) -> list[tuple[str, int]]:
    """Return the hosts with the most sessions, if any has more than one."""
    hosts = Counter(_host(session) for session in status.sessions)
    return [(host, count) for host, count in hosts.most_common(TOP_CLIENTS) if count > 1]


def span(seconds: float) -> str:
    """Write a time span to the second, below one to the millisecond."""
    shown = round(seconds) if seconds >= 1 else max(round(seconds, 3), 0.001)
    return str(Duration(shown))


def _host(session: Session) -> str:
    return session.client.rpartition(":")[0]


def _metrics(status: Status) -> Iterator[str]:
    yield from _metric("up", "gauge", "Whether the daemon runs.", {(): 1})
    yield from _metric(
        "start_time_seconds", "gauge", "When the daemon started.", {(): status.started}
    )
    yield from _metric("upgrades", "counter", "Upgrades while it ran.", {(): status.upgrades})
    yield from _metric("clients", "gauge", "Clients now.", {(): status.clients.now})
    yield from _metric("clients_peak", "gauge", "Most clients at once.", {(): status.clients.peak})
    yield from _metric("clients_limit", "gauge", "Clients allowed.", {(): status.clients.limit})
    yield from _metric("handlers", "gauge", "Handler processes now.", {(): status.handlers.now})
    yield from _metric(
        "handlers_idle", "gauge", "Handlers that wait for a client.", {(): status.handlers.idle}
    )
    yield from _metric(
        "handlers_lost", "counter", "Handlers that ended by accident.", {(): status.handlers.lost}
    )
    yield from _metric("accepted", "counter", "Clients that were let in.", {(): status.accepted})
    refused: Samples = {
        (("reason", reason),): count for reason, count in sorted(status.refused.items())
    }
    yield from _metric("refused", "counter", "Clients that were refused.", refused)
    yield from _metric("log_written", "counter", "Events in the log.", {(): status.log.written})
    yield from _metric("log_lost", "counter", "Events not in the log.", {(): status.log.lost})
    build: Samples = {(("version", status.version),): 1}
    yield from _metric("build", "info", "The version that runs.", build)


def _metric(name: str, kind: str, text: str, samples: Samples) -> Iterator[str]:
    """Write one metric family; `samples` are its values by their labels."""
    family = f"{OPENMETRICS_PREFIX}_{name}"
    suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
    yield f"# TYPE {family} {kind}"
    if name.endswith("_seconds"):
        yield f"# UNIT {family} seconds"
    yield f"# HELP {family} {text}"
    for labels, value in samples.items():
        shown = ",".join(f"{key}={json.dumps(label)}" for key, label in labels)
        yield f"{family}{suffix}{'{' + shown + '}' if shown else ''} {value}"
