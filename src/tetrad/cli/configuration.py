"""The configuration and the daemon that a command is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from tetrad.cli.exit_status import BAD_CONFIGURATION, FAILURE, PERMISSION, CommandError, remark
from tetrad.config import paths, yaml_reader
from tetrad.config.result import ConfigError
from tetrad.config.types import Path
from tetrad.launch import pidfile
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse

    from tetrad.config.result import ConfigResult


def load(options: argparse.Namespace) -> ConfigResult:
    """Read the file; its problems are for the caller to look at."""
    file = paths.configuration(options.config)
    try:
        return yaml_reader.load(file)
    except PermissionError:
        raise CommandError(f"{file}: permission denied", PERMISSION) from None
    except OSError as error:
        raise CommandError(f"{file}: {reason_of(error)}", BAD_CONFIGURATION) from None


def find(options: argparse.Namespace, *keys: str) -> ConfigResult:
    """Read the file for a command about the daemon that runs with it, problems or none.

    Where it cannot be relied on for these keys, the daemon at the default places is meant if that
    says that this is its file. Raises ConfigError if it does not.
    """
    loaded = load(options)
    if all(map(loaded.is_sure_of, keys)):
        return loaded
    from tetrad.ipc import control_client
    from tetrad.ipc.control_messages import Status

    config = loaded.config
    try:
        pid = running_pid(loaded)
        if pid is not None:
            status = control_client.ask(config.daemon.control, "status", Status)
            if (status.pid, status.config) == (pid, loaded.file):
                file = None if status.log.file is None else Path(status.log.file)
                structs.force_setattr(config, "log", structs.replace(config.log, file=file))
                return loaded
    except (control_client.ControlError, CommandError):
        pass  # whoever it is, it does not say that it is the one
    unclear = f"{loaded.file}: which daemon is meant cannot be told from this"
    raise ConfigError([*loaded.problems, unclear])


def explicit(options: argparse.Namespace) -> str | None:
    """Return the path that -c names, or the environment: a reload reads that again."""
    return paths.named_configuration(options.config)


def check_certificates(loaded: ConfigResult) -> list[str]:
    """Try the certificates, and return what is to be said of good ones. Raises ConfigError."""
    if not any(listener.tls for listener in loaded.config.listen):
        return []
    from tetrad.config import certificates

    return list(certificates.warnings(certificates.read(loaded)))


def warn(loaded: ConfigResult) -> None:
    """Say what is allowed, and hardly what anybody wants."""
    from tetrad.launch import privileges

    for text in check_certificates(loaded):
        remark(f"warning: {text}")
    if privileges.are_kept(loaded.config.daemon):
        remark(
            "warning: daemon.user is not set, so clients are served as root:"
            " name a user, e.g. nobody"
        )


def running_pid(loaded: ConfigResult) -> int | None:
    """Return the pid of the daemon with this pidfile, if it runs."""
    path = loaded.config.daemon.pidfile
    try:
        return pidfile.look(path).pid
    except PermissionError:
        raise CommandError(f"{path}: permission denied", PERMISSION) from None
    except OSError as error:
        raise CommandError(f"{path}: {reason_of(error)}", FAILURE) from None
