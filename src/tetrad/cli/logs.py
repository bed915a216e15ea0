"""status, logs, explain, check: what is, what would be, and what was."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from tetrad.cli.configuration import check_certificates, find, load, running_pid, warn
from tetrad.cli.exit_status import (
    FAILURE,
    OK,
    PERMISSION,
    STATUS_DEAD,
    STATUS_RUNNING,
    STATUS_STOPPED,
    STATUS_UNKNOWN,
    CommandError,
)
from tetrad.config import yaml_writer
from tetrad.config.result import ConfigError
from tetrad.launch import pidfile
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse

    from tetrad.ipc.control_messages import State

DEFAULT_LINES = 20


def status(options: argparse.Namespace) -> int:
    """Say whether the daemon runs, and how it is."""
    from tetrad.cli import status as report
    from tetrad.ipc import control_client
    from tetrad.ipc import control_messages as model

    if options.schema:
        print(report.as_json(model.schema()))
        return OK
    try:
        loaded = find(options, "daemon.pidfile", "daemon.control")
    except ConfigError as error:
        _report_absence(options.format, "unknown", error.problems[-1])
        raise CommandError("; ".join(error.problems), STATUS_UNKNOWN) from None
    path = loaded.config.daemon.pidfile
    try:
        state = pidfile.look(path)
    except OSError as error:
        reason = f"{path}: {reason_of(error)}"
        _report_absence(options.format, "unknown", reason)
        raise CommandError(reason, STATUS_UNKNOWN) from None
    if state.pid is None:
        return _report_absence(options.format, "dead" if state.left else "stopped")
    try:
        answer = control_client.ask(loaded.config.daemon.control, "status", model.Status)
    except control_client.ControlError as error:
        _report_absence(options.format, "unknown", str(error))
        raise CommandError(
            f"running (pid {state.pid}), but no word from it: {error}", STATUS_UNKNOWN
        ) from None
    if options.format == "json":
        print(report.as_json(answer))
    elif options.format == "openmetrics":
        print(report.as_openmetrics(answer))
    else:
        print(report.as_sessions(answer) if options.clients else report.as_text(answer))
    return STATUS_RUNNING


def check(options: argparse.Namespace) -> int:
    """Validate the configuration."""
    if options.schema:
        from tetrad.config import json_schema

        print(json_schema.text(), end="")
        return OK
    loaded = load(options).checked()
    check_certificates(loaded)
    if options.dump:
        print(yaml_writer.dump(loaded.config), end="")
    else:
        print(f"{loaded.file or 'built-in defaults'}: configuration OK")
    warn(loaded)
    return OK


def _report_absence(style: str, state: State, reason: str | None = None) -> int:
    """Say that there is no daemon to tell how it is."""
    from tetrad.cli import status as report
    from tetrad.ipc.control_messages import Absent

    if style == "json":
        print(report.as_json(Absent(state=state, reason=reason)))
    elif style == "openmetrics":
        print(report.as_openmetrics_down())
    elif state != "unknown":
        print("tetrad:", "dead, but its pidfile is left" if state == "dead" else "not running")
    return {"dead": STATUS_DEAD, "stopped": STATUS_STOPPED}.get(state, STATUS_UNKNOWN)


def logs(options: argparse.Namespace) -> int:
    """Show the log, in lines for people."""
    from tetrad.cli import log_reader

    loaded = find(options, "log.file")
    path = loaded.config.log.file
    if path is None:
        raise CommandError("log.file is null: the log is wherever the daemon was started", FAILURE)
    since = None if options.since is None else time.time() - options.since
    wanted = log_reader.LogFilter(
        options.client, options.connection, options.event, options.level, since
    )
    count = DEFAULT_LINES if options.lines is None and since is None else options.lines
    terminal = sys.stdout.isatty()
    colour = terminal and "NO_COLOR" not in os.environ
    try:
        for line in log_reader.show(path, wanted, count, following=options.follow):
            shown = log_reader.render(line, terminal=terminal, colour=colour)
            sys.stdout.buffer.write(shown + b"\n")
            if options.follow:
                sys.stdout.buffer.flush()
    except OSError as error:
        if error.filename is None:
            raise
        status = PERMISSION if isinstance(error, PermissionError) else FAILURE
        raise CommandError(f"{path}: {reason_of(error)}", status) from None
    return OK


def explain(options: argparse.Namespace) -> int:
    """Say whether a client from an address would be let in now, and why."""
    from tetrad.cli import explain as explanation
    from tetrad.config import types as config_types
    from tetrad.ipc import control_client

    loaded = load(options).checked()
    address = config_types.unmapped(options.address)
    outlook = None
    if running_pid(loaded) is not None:
        try:
            outlook = control_client.ask(
                loaded.config.daemon.control, f"source {address}", explanation.AdmissionReport
            )
        except control_client.ControlError as error:
            raise CommandError(str(error), STATUS_UNKNOWN) from None
    verdict = explanation.explain(loaded, address, outlook)
    print("\n".join(verdict.lines))
    return OK if verdict.allowed else FAILURE
