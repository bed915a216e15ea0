"""The configuration of a command, and the daemon that runs with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from tetrad.cli.exit_status import BAD_CONFIGURATION, FAILURE, PERMISSION, CommandError
from tetrad.config import paths, yaml_reader
from tetrad.config.diagnostics import ConfigError
from tetrad.config.types import Path
from tetrad.ipc import control_client
from tetrad.ipc.control_messages import Status
from tetrad.launch import pidfile, privileges
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse

    from tetrad.config.result import ConfigResult


def load(options: argparse.Namespace) -> ConfigResult:
    """Read the file. Its errors are in the result; CommandError means that it cannot be read."""
    file = paths.configuration(options.config)
    try:
        return yaml_reader.load(file)
    except PermissionError:
        hint = f"user {privileges.user_name()} needs read access"
        raise CommandError(f"{file}: permission denied; {hint}", PERMISSION) from None
    except OSError as error:
        raise CommandError(f"{file}: {reason_of(error)}", BAD_CONFIGURATION) from None


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
        pid = running_pid(result)
        if pid is not None:
            status = control_client.ask(config.daemon.control, "status", Status)
            if (status.pid, status.config) == (pid, result.file):
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


def running_pid(result: ConfigResult) -> int | None:
    """Return the pid of the daemon that holds the pidfile, or None."""
    path = result.config.daemon.pidfile
    try:
        return pidfile.read_state(path).pid
    except OSError as error:
        status = PERMISSION if isinstance(error, PermissionError) else FAILURE
        raise CommandError(f"daemon.pidfile: {path}: {reason_of(error)}", status) from None
