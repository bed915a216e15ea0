"""The command line: the only folder that prints, and that decides about exit statuses.

Only a command that runs imports its module, and with it yaml and msgspec: `--help` needs neither.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

from tetrad.cli import terminal
from tetrad.cli.exit_status import (
    BAD_CONFIGURATION,
    FAILURE,
    INTERRUPTED,
    OK,
    CommandError,
    print_error,
)
from tetrad.cli.parser import parser
from tetrad.config.diagnostics import ConfigError
from tetrad.system import module_path
from tetrad.system.sd_notify import Notifier
from tetrad.system.text import LIMIT_HINTS, reason_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    Function = Callable[[argparse.Namespace], int]

DEBUG_VARIABLE = "TETRAD_DEBUG"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    _open_standard_streams()
    for warning in module_path.warnings:
        print_error(warning)
    service_manager = Notifier(os.environ.get("NOTIFY_SOCKET"))
    try:
        status = _run(arguments, service_manager)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        if DEBUG_VARIABLE in os.environ:
            raise
        _report(service_manager, f"internal error: {error!r}; {DEBUG_VARIABLE}=1 shows where")
        status = FAILURE
    sys.exit(_flush(status))


@contextlib.contextmanager
def _keyboard_interrupts() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt instead of ending the process.

    After a successful start another handler ignores it until the success is printed; that stays.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


def _run(arguments: Sequence[str] | None, service_manager: Notifier) -> int:  # noqa: PLR0911
    """Run a command, report its error if it fails, and return its exit status."""
    try:
        options = parser().parse_args(arguments)
        function = _function(options.command)
        # Not earlier: KeyboardInterrupt inside an import may be printed and ignored.
        with _keyboard_interrupts():
            return function(options)
    except SystemExit as exiting:  # after --help, or a usage error
        return exiting.code if isinstance(exiting.code, int) else FAILURE
    except CommandError as error:
        _report(service_manager, str(error))
        return error.status
    except ConfigError as error:
        _report(service_manager, *error.problems)
        return BAD_CONFIGURATION
    except ModuleNotFoundError as error:
        _report(service_manager, _missing_module(error.name or str(error)))
        return FAILURE
    except MemoryError:
        _report(service_manager, f"not enough memory: {LIMIT_HINTS[errno.ENOMEM]}")
        return FAILURE
    except BrokenPipeError:
        return FAILURE  # the reader of the output has closed it, as head(1) does
    except OSError as error:
        # Such as a full standard output, or a working directory that was removed.
        if error.filename is not None or _is_writable(sys.stdout):
            name = error.filename or "input or output"
            _report(service_manager, f"{name}: {reason_of(error)}")
        return FAILURE


def _function(command: str) -> Function:  # noqa: C901, PLR0912 - a table of lazy imports
    """Import and return the function of a command."""
    match command:
        case "run":
            from tetrad.cli.start_stop import run as function
        case "start":
            from tetrad.cli.start_stop import start as function
        case "stop":
            from tetrad.cli.start_stop import stop as function
        case "restart":
            from tetrad.cli.start_stop import restart as function
        case "reload":
            from tetrad.cli.reload_upgrade import reload as function
        case "upgrade":
            from tetrad.cli.reload_upgrade import upgrade as function
        case "status":
            from tetrad.cli.status import status as function
        case "logs":
            from tetrad.cli.logs import logs as function
        case "explain":
            from tetrad.cli.explain import explain as function
        case "check":
            from tetrad.cli.check import check as function
        case "client":
            from tetrad.cli.client import client as function
        case "install":
            from tetrad.cli.install import install as function
        case "uninstall":
            from tetrad.cli.install import uninstall as function
    return function


def _missing_module(name: str) -> str:
    """Return the error for a module of Python, or of a package, that cannot be imported."""
    if name in sys.stdlib_module_names:
        return f"{sys.executable} was built without the module {name}: use another Python"
    return f"{sys.executable} has no module {name}: install tetrad again, with its dependencies"


def _is_writable(stream: TextIO) -> bool:
    """Tell whether the buffer of a stream can be written; if not, `_flush` reports why."""
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _flush(status: int) -> int:
    """Write the buffered output; return the status, or FAILURE if that was not possible.

    Left to the interpreter, a failure would print a traceback.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)  # not an error: the reader wants no more
    except OSError as error:
        _discard(sys.stdout)
        print_error(f"standard output: {reason_of(error)}")
        status = FAILURE if status == OK else status
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    return status


def _discard(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, where the interpreter flushes it without an error."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _open_standard_streams() -> None:
    """Open /dev/null for each of the descriptors 0 to 2 that is closed, and set up the streams.

    Characters that the encoding lacks are escaped, and on a terminal those that could control it.
    $PYTHONUNBUFFERED is overridden: argparse ignores the error if its help cannot be written at
    once.
    """
    try:
        fd = os.open(os.devnull, os.O_RDWR)
    except OSError as error:
        sys.exit(f"tetrad: {os.devnull}: {reason_of(error)}: mknod -m 666 {os.devnull} c 1 3")
    while fd <= 2:  # noqa: PLR2004 - standard error
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    for fd in (1, 2):
        # Another program that has the same terminal or pipe may have made it non-blocking. What the
        # reader is slow to take would be lost.
        if not os.get_blocking(fd):
            os.set_blocking(fd, True)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - open until the process exits
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace", write_through=False, line_buffering=sys.stdout.isatty()
        )
        sys.stdout = terminal.protect(sys.stdout)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = terminal.protect(sys.stderr)


def _report(service_manager: Notifier, *messages: str) -> None:
    """Print errors, and set the status that `systemctl status` shows for the unit."""
    for message in messages:
        print_error(message)
    service_manager.status("; ".join(messages))
