"""`tetrad logs`: print lines of the log, those with an event of tetrad in a readable form."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

from tetrad.cli.configuration import load_for_running
from tetrad.cli.exit_status import FAILURE, OK, PERMISSION, CommandError
from tetrad.cli.log_reader import LogFilter, parse, read
from tetrad.system.text import escape_unprintable, reason_of

if TYPE_CHECKING:
    import argparse

DEFAULT_LINES = 20

_FIRST_FIELDS = {"timestamp", "level", "event", "client", "connection"}
_REPEATED_FIELDS = {"pid", "service", "listener"}
"""Fields that are the same on all lines of a connection, and left out where it is shown."""

_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


def logs(options: argparse.Namespace) -> int:
    """Print the last lines of the log that match the options, and follow it if asked to."""
    result = load_for_running(options, "log.file")
    path = result.config.log.file
    if path is None:
        message = "log.file is null: the log is the standard error of the daemon"
        raise CommandError(f"{message}; under systemd: journalctl -u tetrad", FAILURE)
    since = None if options.since is None else time.time() - options.since
    wanted = LogFilter(options.client, options.connection, options.event, options.level, since)
    count = DEFAULT_LINES if options.lines is None and since is None else options.lines
    terminal = sys.stdout.isatty()
    colour = terminal and "NO_COLOR" not in os.environ
    try:
        for line in read(path, wanted, count, following=options.follow):
            sys.stdout.buffer.write(render(line, terminal=terminal, colour=colour) + b"\n")
            if options.follow:
                sys.stdout.buffer.flush()
    except OSError as error:
        if error.filename is None:
            raise
        status = PERMISSION if isinstance(error, PermissionError) else FAILURE
        raise CommandError(f"{path}: {reason_of(error)}", status) from None
    return OK


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
    stamp = f"{event.moment:%m-%d %H:%M:%S}.{milliseconds:03d}"
    words = [stamp, level, f"{escape_unprintable(event.name):<19}", *map(_shown, session), *others]
    return " ".join(words).encode()


def _shown(value: object) -> str:
    """Return the value of a field without unprintable characters, in quotes if it has spaces."""
    if isinstance(value, str):
        plain = escape_unprintable(value)
        return f'"{plain}"' if " " in plain or not plain else plain
    return escape_unprintable(json.dumps(value))
