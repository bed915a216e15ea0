"""`tetrad check`: validate the configuration, print it, or print its JSON Schema."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from tetrad.cli import systemctl
from tetrad.cli.configuration import config_path, load
from tetrad.cli.exit_status import OK, PERMISSION, USAGE, CommandError, print_error, print_line
from tetrad.config import paths, programs, yaml_writer
from tetrad.config.command_model import Run
from tetrad.config.diagnostics import ConfigError
from tetrad.launch import functions, privileges
from tetrad.launch.launcher import Launcher
from tetrad.launch.preflight import Starter
from tetrad.system import users

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tetrad.cli.systemctl import Unit
    from tetrad.config.certificates import ListenerTls
    from tetrad.config.result import ConfigResult
    from tetrad.launch.preflight import Problem


def check(options: argparse.Namespace) -> int:
    """Validate the configuration."""
    if options.schema:
        from tetrad.config import json_schema

        print(json_schema.text(), end="")
        return OK
    unit = systemctl.find_unit(options)
    is_units = unit is not None and options.user in {None, unit.user}
    starter = (None if is_units else _starter_named(options)) or starter_of(unit)
    result = load(options).checked()
    foreground = unit is None or unit.is_foreground
    launcher, problems = prepare(result, options, starter, foreground=foreground)
    if problems:
        raise ConfigError([one.text for one in problems])
    if options.dump:
        print(yaml_writer.dump(result.config), end="")
    else:
        print_line(f"{result.file or 'built-in defaults'}: configuration OK")
    print_warnings(result, launcher, has_user=starter.user is not None)
    return OK


def starter_of(unit: Unit | None) -> Starter:
    """Return who starts the daemon of a unit. The default paths are then those of its daemon."""
    if unit is None:
        return Starter()
    unit.use_default_paths()
    starter = Starter(
        folders=unit.folders,
        program=unit.program,
        environment=unit.environment,
        pidfile=unit.pidfile,
    )
    if unit.is_root:
        return starter
    try:
        identity = privileges.identity_of(unit.user, *unit.groups)
    except KeyError:
        return starter  # a user that exists only inside the service
    return starter._replace(user=identity, name=f"user {unit.user} of {unit.name}")


def _starter_named(options: argparse.Namespace) -> Starter | None:
    """Return the user that --user names, whose default paths are then used.

    None: this process starts the daemon, which has or changes to that user, or there is no --user.
    """
    name: str | None = options.user
    if name is None or (uid := users.user(name)[0]) == os.geteuid():
        return None
    if os.geteuid():
        raise CommandError("--user: only root can check as another user", PERMISSION)
    serving = load(options).config.daemon.user
    if serving is not None and users.user(serving)[0] == uid:
        return None
    try:
        identity = privileges.identity_of(name)
    except KeyError:
        message = f"--user {name}: this id has no entry on this machine, and so no group"
        raise CommandError(message, USAGE) from None
    paths.use_defaults_of_user(uid, {"HOME": users.home(uid)})
    return Starter(identity, f"user {name}")


def prepare(
    result: ConfigResult, options: argparse.Namespace, starter: Starter, *, foreground: bool
) -> tuple[Launcher, list[Problem]]:
    """Return the launcher, and what is known to prevent a start.

    Raises ConfigError for certificates and functions, with all else that is known.
    """
    faults: list[str] = []
    certificates: list[ListenerTls | None] = []
    try:
        certificates = read_certificates(result)
    except ConfigError as error:
        faults += error.problems
    try:
        check_functions(result, starter)
    except ConfigError as error:
        faults += error.problems
    launcher = Launcher(result, config_path(options), certificates, foreground=foreground)
    problems = launcher.problems(starter)
    if faults:
        raise ConfigError([*faults, *(one.text for one in problems)])
    return launcher, problems


def read_certificates(result: ConfigResult) -> list[ListenerTls | None]:
    """Read and verify the certificates of all listeners; an empty list if none has TLS.

    Raises ConfigError.
    """
    if not any(listener.tls for listener in result.config.listen):
        return []
    from tetrad.config import certificates  # imports ssl

    return certificates.read(result)


def check_functions(result: ConfigResult, starter: Starter = Starter()) -> None:  # noqa: B008
    """Check the Python functions of commands as the user who will serve. Raises ConfigError."""
    # Where only root could become the user who will serve, the start says so.
    with contextlib.suppress(PermissionError):
        user = starter.user or privileges.target_identity(result.config.daemon)
        functions.check(result, user, starter.environment if starter.program else None)


def print_warnings(result: ConfigResult, launcher: Launcher, *, has_user: bool = False) -> None:
    """Warn about what a start does not prevent: expiry, reloads, setuid programs, handlers of root.

    `has_user`: a unit of systemd has a user for it.
    """
    _print_expiry(launcher.certificates)
    for text in launcher.warnings:
        print_error(f"warning: {text}")
    for name, command in result.config.commands.items():
        if isinstance(command, Run) and programs.is_setuid(command.program):
            print_error(
                f"warning: commands.{name}.run: {command.program} is setuid or setgid, without "
                "effect: programs of the daemon gain no privileges"
            )
    if not has_user and privileges.serves_as_root(result.config.daemon):
        print_error(
            "warning: daemon.user is not set, so the handlers run as root; set it to a user that"
            " nothing else runs as, such as tetrad (useradd --system tetrad)"
        )


def _print_expiry(found: Sequence[ListenerTls | None]) -> None:
    if not found:
        return
    from tetrad.config.certificates import expiry_warnings

    for text in expiry_warnings(found):
        print_error(f"warning: {text}")
