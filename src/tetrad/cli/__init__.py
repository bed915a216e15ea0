"""The command line: the only printer, and the only owner of exit statuses."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

from tetrad.cli.exit_status import BAD_CONFIGURATION, FAILURE, INTERRUPTED, OK, CommandError, remark
from tetrad.cli.parser import parser
from tetrad.config.result import ConfigError
from tetrad.system.sd_notify import Notifier
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEBUG_VARIABLE = "TETRAD_DEBUG"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    _open_standard_streams()
    manager = Notifier(os.environ.get("NOTIFY_SOCKET"))
    try:
        with _interruptible():
            status = _run(arguments, manager)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        if DEBUG_VARIABLE in os.environ:
            raise
        _complain(manager, f"a defect in tetrad: {error!r}; set {DEBUG_VARIABLE}=1 to see where")
        status = FAILURE
    sys.exit(_flush(status))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt, where it would end us without a word.

    A start that has succeeded has it do nothing, until that is said.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def _run(arguments: Sequence[str] | None, manager: Notifier) -> int:
    """Run a command, and tell what went wrong, if anything did."""
    try:
        options = parser().parse_args(arguments)
        status: int = options.command(options)
    except SystemExit as leaving:  # after --help, or a usage error
        return leaving.code if isinstance(leaving.code, int) else FAILURE
    except CommandError as error:
        _complain(manager, str(error))
        return error.status
    except ConfigError as error:
        _complain(manager, *error.problems)
        return BAD_CONFIGURATION
    except BrokenPipeError:
        return FAILURE  # whoever read our output has left
    except OSError as error:
        # What no command expects: standard output is full, the working directory is gone.
        if error.filename is not None or _is_writable(sys.stdout):
            what = error.filename or "input or output"
            _complain(manager, f"{what}: {reason_of(error)}")
        return FAILURE
    return status


def _is_writable(stream: TextIO) -> bool:
    """Tell whether what is left in a stream can be written; if not, `_flush` tells why."""
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _flush(status: int) -> int:
    """Write what is left of the output; return the status, unless that was not to be written.

    The interpreter would say more about it than an operator wants to know.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon(sys.stdout)  # that nobody reads it does not make it wrong
    except OSError as error:
        _abandon(sys.stdout)
        remark(f"standard output: {reason_of(error)}")
        status = FAILURE if status == OK else status
    try:
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)
    return status


def _abandon(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_standard_streams() -> None:
    """Have descriptors 0 to 2 taken, should whoever started us have closed them.

    What cannot be written in the terminal's encoding is escaped. $PYTHONUNBUFFERED changes nothing:
    argparse overlooks that its help cannot be written where that is found out at once.
    """
    try:
        fd = os.open(os.devnull, os.O_RDWR)
    except OSError as error:
        sys.exit(f"tetrad: {os.devnull}: {reason_of(error)}: mknod -m 666 {os.devnull} c 1 3")
    while fd <= 2:  # noqa: PLR2004 - standard error
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - kept for good
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace", write_through=False, line_buffering=sys.stdout.isatty()
        )


def _complain(manager: Notifier, *messages: str) -> None:
    """Say what is wrong: here, and in the service manager's status of what it had us do."""
    for message in messages:
        remark(message)
    manager.status("; ".join(messages))
