"""Exit statuses, the error that ends a command with one, and messages in one line."""

from __future__ import annotations

import contextlib
import signal
import sys

from tetrad.system.text import escape_unprintable

OK = 0
FAILURE = 1
USAGE = 2
PERMISSION = 4
NOT_RUNNING = 7
BAD_CONFIGURATION = 78
STATUS_RUNNING, STATUS_DEAD, STATUS_STOPPED, STATUS_UNKNOWN = 0, 1, 3, 4
"""Of `tetrad status`, as the Linux Standard Base defines them for init scripts."""


def of_signal(number: int) -> int:
    """Return the exit status of a command that a signal interrupted, as shells report it."""
    return 128 + number


INTERRUPTED = of_signal(signal.SIGINT)


class CommandError(Exception):
    """A command failed: a message for standard error, and the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def print_line(text: str) -> None:
    """Print a line on standard output, whatever the text has."""
    print(escape_unprintable(text))


def print_error(text: str) -> None:
    """Print a line on standard error; an error of the stream itself is ignored."""
    with contextlib.suppress(OSError):
        print(escape_unprintable(f"tetrad: {text}"), file=sys.stderr)
