"""`tetrad status`: the state of the daemon as text, JSON or metrics for Prometheus."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec

from tetrad.cli.configuration import find_daemon, load_for_running, not_running
from tetrad.cli.exit_status import (
    OK,
    STATUS_DEAD,
    STATUS_RUNNING,
    STATUS_STOPPED,
    STATUS_UNKNOWN,
    CommandError,
    print_error,
    print_line,
)
from tetrad.config.diagnostics import ConfigError
from tetrad.config.types import Duration
from tetrad.ipc import control_client, control_messages
from tetrad.launch import pidfile, running_daemon
from tetrad.system.text import escape_unprintable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tetrad.config.result import ConfigResult
    from tetrad.ipc.control_messages import Session, State, Status

TOP_SOURCES = 5

METRICS_PREFIX = "tetrad"

Samples = dict[tuple[tuple[str, str], ...], float]
"""The values of a metric by their labels."""


class Metric(NamedTuple):
    """A metric family: its name without prefix and suffix, its type in OpenMetrics, its values."""

    name: str
    kind: str
    text: str
    samples: Samples


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
    try:
        answer = running_daemon.ask(result.config.daemon, "status", control_messages.Status)
    except control_client.ControlError as error:
        return _without_answer(result, options.format, error)
    if not running_daemon.is_same_file(answer.config, result.file):
        used = f"this daemon runs with {answer.config or 'the built-in defaults'}"
        print_error(f"warning: {used}, not with {result.file or 'the built-in defaults'}")
    if options.format == "json":
        print(as_json(answer))
    elif options.format in METRICS_FORMATS:
        print(METRICS_FORMATS[options.format](answer))
    else:
        print(session_table(answer) if options.clients else as_text(answer))
    return STATUS_RUNNING


def _without_answer(result: ConfigResult, style: str, failure: control_client.ControlError) -> int:
    """Print why there is no status, and return whether the daemon is dead or stopped.

    Raises CommandError if it runs, or that is unknown.
    """
    if failure.is_permission or isinstance(failure, control_client.UntrustedPeerError):
        _fail(style, str(failure))
    try:
        daemon = find_daemon(result)
    except CommandError as error:
        _fail(style, str(error))
    if daemon is not None:
        _fail(style, f"running (pid {daemon.pid}), but not responding: {failure}")
    if pidfile.read_state(result.config.daemon.pidfile).is_stale:
        reason = f"dead, but the pidfile exists ({result.config.daemon.pidfile})"
        _print_absent(style, "dead", reason)
        return STATUS_DEAD
    _print_absent(style, "stopped", not_running(result))
    return STATUS_STOPPED


def _fail(style: str, reason: str) -> NoReturn:
    _print_absent(style, "unknown", reason)
    raise CommandError(reason, STATUS_UNKNOWN) from None


def _print_absent(style: str, state: State, reason: str) -> None:
    """Print that there is no status; an unknown state as text is an error message instead."""
    if style == "json":
        print(as_json(control_messages.Absent(state=state, reason=reason)))
    elif style in METRICS_FORMATS:
        print(METRICS_FORMATS[style](None))
    elif state != "unknown":
        print_line(f"tetrad: {reason}")


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


def as_prometheus(status: Status | None) -> str:
    """Return a status in Prometheus' text format 0.0.4; None: there is no status.

    It has neither units nor the type info, and the metadata have the names of the samples.
    """
    lines = []
    for metric in _metrics(status):
        name = _sample_name(metric)
        kind = "gauge" if metric.kind == "info" else metric.kind
        lines += [f"# HELP {name} {metric.text}", f"# TYPE {name} {kind}", *_sample_lines(metric)]
    return "\n".join(lines)


def as_openmetrics(status: Status | None) -> str:
    """Return a status in the OpenMetrics text format 1.0; None: there is no status."""
    lines = []
    for metric in _metrics(status):
        family = f"{METRICS_PREFIX}_{metric.name}"
        lines.append(f"# TYPE {family} {metric.kind}")
        if metric.name.endswith("_seconds"):
            lines.append(f"# UNIT {family} seconds")
        lines += [f"# HELP {family} {metric.text}", *_sample_lines(metric)]
    return "\n".join([*lines, "# EOF"])


METRICS_FORMATS = {"prometheus": as_prometheus, "openmetrics": as_openmetrics}


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


def _metrics(status: Status | None) -> Iterator[Metric]:
    yield Metric("up", "gauge", "Whether the daemon runs.", {(): int(status is not None)})
    if status is None:
        return
    clients, handlers, log = status.clients, status.handlers, status.log
    yield Metric("start_time_seconds", "gauge", "Start time of the daemon.", {(): status.started})
    yield Metric("upgrades", "counter", "Upgrades since the start.", {(): status.upgrades})
    yield Metric("clients", "gauge", "Connected clients.", {(): clients.now})
    yield Metric("clients_peak", "gauge", "Most clients at a time.", {(): clients.peak})
    yield Metric("clients_limit", "gauge", "Maximum of clients.", {(): clients.limit})
    yield Metric("handlers", "gauge", "Handler processes.", {(): handlers.now})
    yield Metric("handlers_idle", "gauge", "Handlers without a client.", {(): handlers.idle})
    yield Metric(
        "handlers_lost", "counter", "Handlers that exited unexpectedly.", {(): handlers.lost}
    )
    yield Metric("accepted", "counter", "Accepted clients.", {(): status.accepted})
    refused: Samples = {
        (("reason", reason),): count for reason, count in sorted(status.refused.items())
    }
    rejected: Samples = {
        (("reason", reason),): count for reason, count in sorted(status.rejected.items())
    }
    yield Metric("refused", "counter", "Refused clients.", refused)
    yield Metric("rejected", "counter", "Sessions that TLS or an access list ended.", rejected)
    yield Metric("log_written", "counter", "Events written to the log.", {(): log.written})
    yield Metric("log_lost", "counter", "Events that were not written.", {(): log.lost})
    build: Samples = {(("version", status.version),): 1}
    yield Metric("build", "info", "Version of the daemon.", build)


def _sample_name(metric: Metric) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(metric.kind, "")
    return f"{METRICS_PREFIX}_{metric.name}{suffix}"


def _sample_lines(metric: Metric) -> Iterator[str]:
    for labels, value in metric.samples.items():
        shown = ",".join(f"{key}={json.dumps(label)}" for key, label in labels)
        yield f"{_sample_name(metric)}{'{' + shown + '}' if shown else ''} {value}"
