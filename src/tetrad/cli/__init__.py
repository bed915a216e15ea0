"""The command line: the only printer, and the only owner of exit statuses."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from tetrad import configfile
from tetrad.cli.outcome import BAD_CONFIGURATION, FAILURE, INTERRUPTED, CommandError
from tetrad.cli.parser import parser
from tetrad.notify import Notifier
from tetrad.terminal import harmless

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

DEBUG_VARIABLE = "TETRAD_DEBUG"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    _open_standard_streams()
    manager = Notifier(os.environ.get("NOTIFY_SOCKET"))
    options = parser().parse_args(arguments)
    try:
        with _interruptible():
            status = _run(options, manager)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        if DEBUG_VARIABLE in os.environ:
            raise
        _complain(manager, f"a defect in tetrad: {error!r}; set {DEBUG_VARIABLE}=1 to see where")
        status = FAILURE
    sys.exit(status)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt, where it would end us without a word."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(options: argparse.Namespace, manager: Notifier) -> int:
    """Run a command, and tell what went wrong, if anything did."""
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except CommandError as error:
        _complain(manager, str(error))
        return error.status
    except configfile.ConfigError as error:
        _complain(manager, *error.problems)
        return BAD_CONFIGURATION
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        # What no command expects: standard output is full, the working directory is gone.
        what = error.filename or "input or output"
        _complain(manager, f"{what}: {(error.strerror or '').lower()}")
        return FAILURE
    return status


def _open_standard_streams() -> None:
    """Have descriptors 0 to 2 taken, should whoever started us have closed them."""
    try:
        fd = os.open(os.devnull, os.O_RDWR)
    except OSError as error:
        sys.exit(f"tetrad: {os.devnull}: {error.strerror}: mknod -m 666 {os.devnull} c 1 3")
    while fd <= 2:  # noqa: PLR2004 - standard error
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 - kept for good
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _complain(manager: Notifier, *messages: str) -> None:
    """Say what is wrong: here, and in the service manager's status of what it had us do."""
    for message in messages:
        print(harmless(f"tetrad: {message}"), file=sys.stderr)
    manager.status("; ".join(messages))
