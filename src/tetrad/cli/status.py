"""`tetrad status`: the state of the daemon as text, JSON or OpenMetrics."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from tetrad.cli.configuration import load_for_running
from tetrad.cli.exit_status import (
    OK,
    STATUS_DEAD,
    STATUS_RUNNING,
    STATUS_STOPPED,
    STATUS_UNKNOWN,
    CommandError,
)
from tetrad.config.diagnostics import ConfigError
from tetrad.config.types import Duration
from tetrad.ipc import control_client, control_messages
from tetrad.launch import pidfile
from tetrad.system.text import escape_unprintable, reason_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tetrad.ipc.control_messages import Session, State, Status

TOP_SOURCES = 5

OPENMETRICS_PREFIX = "tetrad"

Samples = dict[tuple[tuple[str, str], ...], float]
"""The values of a metric by their labels."""


def status(options: argparse.Namespace) -> int:
    """Print the state of the daemon; the exit status tells it to init scripts."""
    if options.schema:
        print(as_json(control_messages.schema()))
        return OK
    try:
        result = load_for_running(options, "daemon.pidfile", "daemon.control")
    except ConfigError as error:
        _print_absent(options.format, "unknown", error.problems[-1])
        raise CommandError("; ".join(error.problems), STATUS_UNKNOWN) from None
    path = result.config.daemon.pidfile
    try:
        holder = pidfile.read_state(path)
    except OSError as error:
        reason = f"daemon.pidfile: {path}: {reason_of(error)}"
        _print_absent(options.format, "unknown", reason)
        raise CommandError(reason, STATUS_UNKNOWN) from None
    if holder.pid is None:
        _print_absent(options.format, "dead" if holder.is_stale else "stopped")
        return STATUS_DEAD if holder.is_stale else STATUS_STOPPED
    try:
        answer = control_client.ask(result.config.daemon.control, "status", control_messages.Status)
    except control_client.ControlError as error:
        _print_absent(options.format, "unknown", str(error))
        message = f"running (pid {holder.pid}), but not responding: {error}"
        raise CommandError(message, STATUS_UNKNOWN) from None
    if options.format == "json":
        print(as_json(answer))
    elif options.format == "openmetrics":
        print(as_openmetrics(answer))
    else:
        print(session_table(answer) if options.clients else as_text(answer))
    return STATUS_RUNNING


def _print_absent(style: str, state: State, reason: str | None = None) -> None:
    """Print that there is no status; an unknown state as text is an error message instead."""
    if style == "json":
        print(as_json(control_messages.Absent(state=state, reason=reason)))
    elif style == "openmetrics":
        print(as_openmetrics_down())
    elif state != "unknown":
        text = "dead, but the pidfile exists" if state == "dead" else "not running"
        print(f"tetrad: {text}")


def as_json(document: Any) -> str:  # noqa: ANN401 - any document
    """Return a status or any other document as JSON."""
    return json.dumps(msgspec.to_builtins(document), indent=2)


def as_text(status: Status) -> str:
    """Return a status in lines, each with a name and its value."""
    clients, handlers, log = status.clients, status.handlers, status.log
    started = datetime.fromtimestamp(status.started).astimezone()
    lines = [
        f"tetrad {status.version}: {status.state} (pid {status.pid})",
        f"  since      {started:%Y-%m-%d %H:%M:%S %Z}, {format_age(status.uptime)} ago",
        *_upgrades(status),
        f"  config     {status.config or 'built-in defaults'}",
        *(f"  listening  {one.name} ({one.kind})" for one in status.listeners),
        f"  clients    {clients.now} now, {clients.peak} at most, {clients.limit} allowed",
        f"  handlers   {handlers.now} now, {handlers.idle} idle, {handlers.lost} lost",
        f"  accepted   {status.accepted}",
        f"  refused    {_counts(status.refused)}",
        *([f"  rejected   {_counts(status.rejected)}"] if any(status.rejected.values()) else []),
        f"  log        {log.file or 'standard error'}: {log.written} written, {log.lost} lost"
        + ("" if log.logger else "; the logger does not run: use tetrad restart"),
    ]
    top = top_sources(status)
    if top:
        lines.append("  top        " + ", ".join(f"{host} ({count})" for host, count in top))
    return "\n".join(map(escape_unprintable, lines))


def _counts(by_reason: dict[str, int]) -> str:
    """Return counts by reason in one line: `3 access, 1 rate`."""
    return ", ".join(f"{count} {reason}" for reason, count in by_reason.items() if count) or "none"


def _upgrades(status: Status) -> Iterator[str]:
    if status.upgraded is not None:
        moment = datetime.fromtimestamp(status.upgraded).astimezone()
        times = "once" if status.upgrades == 1 else f"{status.upgrades} times"
        yield f"  upgraded   {times}, last at {moment:%Y-%m-%d %H:%M:%S %Z}"


def session_table(status: Status) -> str:
    """Return a table of the sessions, the oldest first."""
    rows = [
        ("CONNECTION", "CLIENT", "SERVICE", "AGE", "PID"),
        *(
            (one.connection, one.client, one.service, format_age(one.age), str(one.pid))
            for one in sorted(status.sessions, key=lambda session: -session.age)
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(map(escape_unprintable, padded))


def as_openmetrics(status: Status) -> str:
    """Return a status in the OpenMetrics text format, for Prometheus' textfile collector."""
    return "\n".join([*_metrics(status), "# EOF"])


def as_openmetrics_down() -> str:
    """Return the metrics when there is no status."""
    return "\n".join([*_metric("up", "gauge", "Whether the daemon runs.", {(): 0}), "# EOF"])


def top_sources(status: Status) -> list[tuple[str, int]]:
    """Return the client addresses with the most sessions, and their numbers if above one."""
    hosts = Counter(_host(session) for session in status.sessions)
    return [(host, count) for host, count in hosts.most_common(TOP_SOURCES) if count > 1]


def format_age(seconds: float) -> str:
    """Return a time span rounded to seconds; one below a second is rounded to milliseconds."""
    shown = round(seconds) if seconds >= 1 else max(round(seconds, 3), 0.001)
    return str(Duration(shown))


def _host(session: Session) -> str:
    return session.client.rpartition(":")[0]


def _metrics(status: Status) -> Iterator[str]:
    clients, handlers, log = status.clients, status.handlers, status.log
    yield from _metric("up", "gauge", "Whether the daemon runs.", {(): 1})
    yield from _metric(
        "start_time_seconds", "gauge", "Start time of the daemon.", {(): status.started}
    )
    yield from _metric("upgrades", "counter", "Upgrades since the start.", {(): status.upgrades})
    yield from _metric("clients", "gauge", "Connected clients.", {(): clients.now})
    yield from _metric("clients_peak", "gauge", "Most clients at a time.", {(): clients.peak})
    yield from _metric("clients_limit", "gauge", "Maximum of clients.", {(): clients.limit})
    yield from _metric("handlers", "gauge", "Handler processes.", {(): handlers.now})
    yield from _metric("handlers_idle", "gauge", "Handlers without a client.", {(): handlers.idle})
    yield from _metric(
        "handlers_lost", "counter", "Handlers that exited unexpectedly.", {(): handlers.lost}
    )
    yield from _metric("accepted", "counter", "Accepted clients.", {(): status.accepted})
    refused: Samples = {
        (("reason", reason),): count for reason, count in sorted(status.refused.items())
    }
    yield from _metric("refused", "counter", "Refused clients.", refused)
    rejected: Samples = {
        (("reason", reason),): count for reason, count in sorted(status.rejected.items())
    }
    yield from _metric("rejected", "counter", "Sessions that TLS ended.", rejected)
    yield from _metric("log_written", "counter", "Events written to the log.", {(): log.written})
    yield from _metric("log_lost", "counter", "Events that were not written.", {(): log.lost})
    build: Samples = {(("version", status.version),): 1}
    yield from _metric("build", "info", "Version of the daemon.", build)


def _metric(name: str, kind: str, text: str, samples: Samples) -> Iterator[str]:
    """Yield the lines of one metric family; `samples` are its values by their labels."""
    family = f"{OPENMETRICS_PREFIX}_{name}"
    suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
    yield f"# TYPE {family} {kind}"
    if name.endswith("_seconds"):
        yield f"# UNIT {family} seconds"
    yield f"# HELP {family} {text}"
    for labels, value in samples.items():
        shown = ",".join(f"{key}={json.dumps(label)}" for key, label in labels)
        yield f"{family}{suffix}{'{' + shown + '}' if shown else ''} {value}"
