"""status, logs, explain, check: what is, what would be, and what was."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from tetrad import configfile, pidfile
from tetrad.cli.configuration import load, running_pid
from tetrad.cli.outcome import (
    FAILURE,
    OK,
    PERMISSION,
    STATUS_DEAD,
    STATUS_RUNNING,
    STATUS_STOPPED,
    STATUS_UNKNOWN,
    CommandError,
)

if TYPE_CHECKING:
    import argparse

DEFAULT_LINES = 20


def status(options: argparse.Namespace) -> int:
    """Say whether the daemon runs, and how it is."""
    from tetrad import remote, report
    from tetrad import status as model

    if options.schema:
        print(report.as_json(model.schema()))
        return OK
    loaded = load(options)
    path = loaded.config.daemon.pidfile
    try:
        state = pidfile.look(path)
    except OSError as error:
        raise CommandError(f"{path}: {(error.strerror or '').lower()}", STATUS_UNKNOWN) from None
    if state.pid is None:
        return _report_absence(options.format, left=state.left)
    try:
        answer = remote.ask(loaded.config.daemon.control, "status", model.Status)
    except remote.NoAnswerError as error:
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
    loaded = load(options).checked()
    if options.dump:
        print(configfile.dump(loaded.config), end="")
    else:
        print(f"{loaded.file or 'built-in defaults'}: configuration OK")
    return OK


def logs(options: argparse.Namespace) -> int:
    """Show the log, in lines for people."""
    from tetrad import logview

    loaded = load(options)
    path = loaded.config.log.file
    if path is None:
        raise CommandError("log.file is null: the log is wherever the daemon was started", FAILURE)
    since = None if options.since is None else time.time() - options.since
    wanted = logview.Wanted(options.client, options.connection, options.event, options.level, since)
    count = options.lines
    if count is None and since is None:
        count = DEFAULT_LINES
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    try:
        for line in logview.show(path, wanted, count, following=options.follow):
            print(logview.render(line, colour=colour), flush=options.follow)
    except PermissionError:
        raise CommandError(f"{path}: permission denied", PERMISSION) from None
    except OSError as error:
        raise CommandError(f"{path}: {(error.strerror or '').lower()}", FAILURE) from None
    return OK


def explain(options: argparse.Namespace) -> int:
    """Say whether a client from an address would be let in now, and why."""
    from tetrad import explanation, remote

    loaded = load(options).checked()
    outlook = None
    if running_pid(loaded) is not None:
        request = f"source {options.address}"
        try:
            outlook = remote.ask(loaded.config.daemon.control, request, explanation.Outlook)
        except remote.NoAnswerError as error:
            raise CommandError(str(error), FAILURE) from None
    verdict = explanation.explain(loaded, options.address, outlook)
    print("\n".join(verdict.lines))
    return OK if verdict.allowed else FAILURE


def _report_absence(style: str, *, left: bool) -> int:
    from tetrad import report

    if style == "json":
        print(report.as_json({"state": "dead" if left else "stopped"}))
    elif style == "openmetrics":
        print(report.as_openmetrics_down())
    else:
        print("tetrad:", "dead, but its pidfile is left" if left else "not running")
    return STATUS_DEAD if left else STATUS_STOPPED
