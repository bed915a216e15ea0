"""The configuration of a command, and the daemon that runs with it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec import structs

from tetrad.cli import systemctl
from tetrad.cli.exit_status import (
    BAD_CONFIGURATION,
    FAILURE,
    PERMISSION,
    CommandError,
    print_error,
)
from tetrad.config import paths, yaml_reader
from tetrad.config.diagnostics import ConfigError
from tetrad.config.types import Path
from tetrad.ipc import control_client
from tetrad.ipc.control_messages import Status
from tetrad.launch import privileges, running_daemon
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse

    from tetrad.config.result import ConfigResult
    from tetrad.launch.running_daemon import RunningDaemon

MAX_OTHERS = 5
"""How many other daemons the message that none is running names."""


def load(options: argparse.Namespace) -> ConfigResult:
    """Read the file. Its errors are in the result; CommandError means that it cannot be read."""
    file = paths.configuration(options.config)
    if file != paths.SYSTEM_CONFIGURATION and getattr(options, "user", None) is None:
        _use_default_paths_of_unit(options)
    try:
        result = yaml_reader.load(file)
    except PermissionError:
        hint = f"user {privileges.user_name()} needs read access"
        raise CommandError(f"{file}: permission denied; {hint}", PERMISSION) from None
    except OSError as error:
        raise CommandError(f"{file}: {reason_of(error)}", BAD_CONFIGURATION) from None
    try:
        paths.check_temporary_home()
    except PermissionError as error:
        raise CommandError(f"{error.filename}: {reason_of(error)}", PERMISSION) from None
    return result


def _use_default_paths_of_unit(options: argparse.Namespace) -> None:
    """Let the default paths be those of the unit that has the file, for root's commands about it.

    Those of the system's file are the same for all users.
    """
    with contextlib.suppress(CommandError):
        if (unit := systemctl.find_unit(options)) is not None:
            unit.use_default_paths()


def load_for_running(options: argparse.Namespace, *keys: str) -> ConfigResult:
    """Read the file for a command about a running daemon, which does not depend on its errors.

    If they make one of `keys` uncertain, the daemon at the default pidfile and control socket is
    used if it runs with this file. Otherwise ConfigError is raised.
    """
    result = load(options)
    if all(map(result.is_reliable, keys)):
        return result
    config = result.config
    try:
        if find_daemon(result) is not None:
            status = running_daemon.ask(config.daemon, "status", Status)
            file = None if status.log.file is None else Path(status.log.file)
            structs.force_setattr(config, "log", structs.replace(config.log, file=file))
            return result
    except (control_client.ControlError, CommandError):
        pass
    unknown = f"{result.file}: cannot determine the pidfile and control socket from this file"
    raise ConfigError([*result.problems, unknown])


def config_path(options: argparse.Namespace) -> str | None:
    """Return the path from -c or $TETRAD_CONFIG: a reload reads the same file again."""
    return paths.named_configuration(options.config)


def find_daemon(result: ConfigResult) -> RunningDaemon | None:
    """Return the daemon of a file, or None. CommandError: it runs with another file, or unknown.

    If no file is named and there is none, it is the daemon at the default places.
    """
    daemon = look_for_daemon(result)
    if daemon is not None and result.file is not None:
        require_same_file(daemon, result)
    if daemon is None and (other := running_daemon.find_of_another_user(result.file)) is not None:
        where = f"neither at pidfile {result.config.daemon.pidfile} nor at its control socket"
        text = f"pid {other.pid} of user {other.user} runs with {other.file}, but {where}"
        raise CommandError(f"{text}; kill {other.pid} stops it", FAILURE)
    return daemon


def require_same_file(daemon: RunningDaemon, result: ConfigResult) -> None:
    """Raise CommandError if a daemon runs with another file."""
    if not daemon.runs_with(result.file):
        text = running_daemon.other_file(daemon, result.config.daemon, result.file)
        raise CommandError(text, FAILURE)


def running_pid(result: ConfigResult) -> int | None:
    """Return the pid of the daemon of a file, or None: also if the one there has another file."""
    daemon = look_for_daemon(result)
    if daemon is None or not (result.file is None or daemon.runs_with(result.file)):
        return None
    return daemon.pid


def not_running(result: ConfigResult) -> str:
    """Return the message that no daemon runs; name other daemons on standard error."""
    others = [f"pid {one.pid} with {one.file}" for one in running_daemon.visible()]
    if others:
        more = f" and {len(others) - MAX_OTHERS} more" if len(others) > MAX_OTHERS else ""
        print_error(f"other running daemons: {', '.join(others[:MAX_OTHERS])}{more}")
    return f"not running (pidfile {result.config.daemon.pidfile})"


def look_for_daemon(result: ConfigResult) -> RunningDaemon | None:
    """Return the daemon of a file's pidfile or control socket; it may run with another file."""
    settings = result.config.daemon
    try:
        return running_daemon.find(settings, result.file)
    except OSError as error:
        status = PERMISSION if isinstance(error, PermissionError) else FAILURE
        text = f"daemon.pidfile: {settings.pidfile}: {reason_of(error)}"
        raise CommandError(text, status) from None
