"""`tetrad logs`: print lines of the log, those with an event of tetrad in a readable form."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from tetrad.cli.configuration import load_for_running
from tetrad.cli.exit_status import FAILURE, OK, PERMISSION, CommandError, print_error
from tetrad.cli.log_reader import LogFilter, parse, read
from tetrad.cli.parser import DEFAULT_LINES
from tetrad.ipc import control_client
from tetrad.ipc.control_messages import Status
from tetrad.launch import running_daemon
from tetrad.system import timezone
from tetrad.system.text import escape_unprintable, reason_of

if TYPE_CHECKING:
    import argparse

    from tetrad.config.result import ConfigResult

    Moment = float | dt.datetime | dt.time
    """A time span before now in seconds, a date and time, or a clock time."""

DAY_SECONDS = 86400.0

ANSWER_TIMEOUT_SECONDS = 1.0
"""How long the daemon has to tell its log; one that hangs must not hide it."""

_FIRST_FIELDS = {"timestamp", "level", "event", "client", "connection"}
_REPEATED_FIELDS = {"pid", "service", "listener"}
"""Fields that are the same on all lines of a connection, and left out where it is shown."""

_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


def logs(options: argparse.Namespace) -> int:
    """Print the last lines of the log that match the options, and follow it if asked to."""
    path = _path(load_for_running(options, "log.file"))
    since, until = _period(options.since, options.until)
    wanted = LogFilter(
        options.client,
        options.connection,
        options.event,
        options.level,
        since,
        until,
        options.reason,
    )
    count = DEFAULT_LINES if options.lines is None and since is None else options.lines
    terminal = sys.stdout.isatty()
    colour = terminal and "NO_COLOR" not in os.environ
    try:
        for line in read(path, wanted, count, following=options.follow, report=_print_unread):
            timezone.follow_machine()
            text = as_json(line) if options.json else render(line, terminal=terminal, colour=colour)
            if text is not None:
                sys.stdout.buffer.write(text + b"\n")
            if options.follow:
                sys.stdout.buffer.flush()
    except OSError as error:
        if error.filename is None:
            raise
        status = PERMISSION if isinstance(error, PermissionError) else FAILURE
        raise CommandError(f"{path}: {reason_of(error)}", status) from None
    return OK


def _print_unread(unread: dict[str, list[str]]) -> None:
    """Warn of files beside the log that are not read, in one line."""
    texts = (f"{', '.join(names)} ({reason})" for reason, names in unread.items())
    print_error(f"warning: not read: {'; '.join(texts)}")


def _path(result: ConfigResult) -> str:
    """Return the log of the daemon that runs with the file; if none answers, that of the file."""
    try:
        status = running_daemon.ask(result.config.daemon, "status", Status, ANSWER_TIMEOUT_SECONDS)
    except control_client.ControlError:
        status = None
    under_systemd = "under systemd: journalctl -u tetrad"
    if status is not None and status.config == result.file:
        if status.log.file is None:
            message = f"the daemon (pid {status.pid}) logs to its standard error, not to a file"
            raise CommandError(f"{message}; {under_systemd}", FAILURE)
        return status.log.file
    if result.config.log.file is None:
        message = "log.file is null: the log is the standard error of the daemon"
        raise CommandError(f"{message}; {under_systemd}", FAILURE)
    return result.config.log.file


def _period(since: Moment | None, until: Moment | None) -> tuple[float | None, float | None]:
    """Return the moments in seconds since 1970.

    A clock time is the last one that has passed, and for `until` the next one if that is before
    `since`.
    """
    first = None if since is None else _seconds(since)
    last = None if until is None else _seconds(until)
    if isinstance(until, dt.time) and first is not None and last is not None and last < first:
        last += DAY_SECONDS
    return first, last


def _seconds(moment: Moment) -> float:
    if isinstance(moment, float):
        return time.time() - moment
    if isinstance(moment, dt.datetime):
        return moment.timestamp()
    passed = dt.datetime.combine(dt.datetime.now(moment.tzinfo), moment)
    if passed.timestamp() > time.time():
        passed -= dt.timedelta(days=1)
    return passed.timestamp()


def as_json(line: bytes) -> bytes | None:
    """Return the event of a line as JSON in ASCII, or None if the line is no event of tetrad."""
    event = parse(line)
    if event is None:
        return None
    return json.dumps(event.fields, separators=(",", ":")).replace("\x7f", "\\u007f").encode()


def render(line: bytes, *, terminal: bool, colour: bool) -> bytes:
    """Return a line in a readable form: local time, level, event, connection, client, fields.

    A line that is no event of tetrad is returned unchanged, or escaped for a terminal.
    """
    event = parse(line)
    if event is None:
        text = line.decode(errors="backslashreplace")
        return escape_unprintable(text).encode() if terminal else line
    level = f"{escape_unprintable(event.level):<7}"
    if colour:
        level = f"\x1b[{_COLOURS.get(event.level, '0')}m{level}\x1b[0m"
    milliseconds = event.moment.microsecond // 1000
    session = [event.fields[key] for key in ("connection", "client") if key in event.fields]
    others = [
        f"{escape_unprintable(key)}={_shown(value)}"
        for key, value in event.fields.items()
        if key not in _FIRST_FIELDS and not (session and key in _REPEATED_FIELDS)
    ]
    stamp = f"{event.moment:%Y-%m-%d %H:%M:%S}.{milliseconds:03d}"
    words = [stamp, level, f"{escape_unprintable(event.name):<19}", *map(_shown, session), *others]
    return " ".join(words).encode()


def _shown(value: object) -> str:
    """Return the value of a field without unprintable characters, in quotes if it has spaces."""
    if isinstance(value, str):
        plain = escape_unprintable(value)
        return f'"{plain}"' if " " in plain or not plain else plain
    return escape_unprintable(json.dumps(value))
