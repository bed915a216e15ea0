"""Exit statuses, how a command fails, and what it remarks beside its output."""

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
"""As the Linux Standard Base has them."""


def of_signal(number: int) -> int:
    """Return the status of a command that a signal has ended, as shells have it."""
    return 128 + number


HUNG_UP, INTERRUPTED, TERMINATED = map(of_signal, (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))


class CommandError(Exception):
    """A command failed; the text is for standard error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def remark(text: str) -> None:
    """Say something on standard error; nothing depends on whether that can be written."""
    with contextlib.suppress(OSError):
        print(escape_unprintable(f"tetrad: {text}"), file=sys.stderr)
