"""`tetrad check`: validate the configuration, print it, or print its JSON Schema."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import subprocess
from typing import TYPE_CHECKING

from tetrad.cli import systemctl
from tetrad.cli.configuration import config_path, load
from tetrad.cli.exit_status import OK, print_error
from tetrad.config import yaml_writer
from tetrad.config.diagnostics import ConfigError
from tetrad.launch import functions, privileges
from tetrad.launch.launcher import Launcher
from tetrad.launch.preflight import Problem

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tetrad.cli.systemctl import Unit
    from tetrad.config.certificates import ListenerTls
    from tetrad.config.result import ConfigResult


def check(options: argparse.Namespace) -> int:
    """Validate the configuration."""
    if options.schema:
        from tetrad.config import json_schema

        print(json_schema.text(), end="")
        return OK
    result = load(options).checked()
    found = read_certificates(result)
    unit = systemctl.find_unit(options)
    check_functions(result, unit)
    foreground = unit is None or unit.is_foreground
    launcher = Launcher(result, config_path(options), found, foreground=foreground)
    if problems := start_problems(result, launcher, unit):
        raise ConfigError([one.text for one in problems])
    if options.dump:
        print(yaml_writer.dump(result.config), end="")
    else:
        print(f"{result.file or 'built-in defaults'}: configuration OK")
    print_warnings(result, found, unit)
    return OK


def start_problems(result: ConfigResult, launcher: Launcher, unit: Unit | None) -> list[Problem]:
    """Return what is known to prevent a start by this user, or by a unit with its user."""
    found = launcher.problems()
    if unit is None:
        return found
    known = {one.text for one in found}
    if not unit.is_root:
        service = f"as user {unit.user} of {unit.name}"
        texts = [text for text in _texts_as_service(result, unit) if text not in known]
        found += [Problem(f"{text} ({service})") for text in texts]
    created = tuple(f"create the directory {folder}" for folder in unit.folders)
    return [one for one in found if not one.text.partition(" (")[0].endswith(created)]


def _texts_as_service(result: ConfigResult, unit: Unit) -> list[str]:
    """Return the problems that the user of a unit has, but for listeners.

    The unit may have capabilities or sockets of systemd for these.
    """
    file = [] if result.file is None else ["-c", result.file]
    try:
        group = (
            grp.getgrnam(unit.groups[0]).gr_gid if unit.groups else pwd.getpwnam(unit.user).pw_gid
        )
        ran = subprocess.run(  # noqa: S603
            [*unit.program, "check", *file],
            user=unit.user,
            group=group,
            extra_groups=[*os.getgrouplist(unit.user, group), *unit.groups[1:]],
            env=unit.environment,
            cwd="/",
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, LookupError):
        return []  # a program or a user that exist only inside the service
    lines = [line.removeprefix("tetrad: ") for line in ran.stderr.splitlines()]
    listeners = tuple(f"{listener.name}: " for listener in result.config.listen)
    return [line for line in lines if ran.returncode and not line.startswith(listeners)]


def read_certificates(result: ConfigResult) -> list[ListenerTls | None]:
    """Read and verify the certificates of all listeners; an empty list if none has TLS.

    Raises ConfigError.
    """
    if not any(listener.tls for listener in result.config.listen):
        return []
    from tetrad.config import certificates  # imports ssl

    return certificates.read(result)


def check_functions(result: ConfigResult, unit: Unit | None = None) -> None:
    """Check the Python functions of commands as the user who will serve. Raises ConfigError.

    The user of a unit checks them in `start_problems`.
    """
    if unit is not None and not unit.is_root:
        return
    # Where only root could become the user who will serve, the start says so.
    with contextlib.suppress(PermissionError):
        functions.check(result, privileges.target_identity(result.config.daemon))


def print_warnings(
    result: ConfigResult, found: Sequence[ListenerTls | None], unit: Unit | None = None
) -> None:
    """Warn about certificates (`found`) that expire soon, and about a daemon that stays root.

    A unit may have a user of its own.
    """
    if found:
        from tetrad.config.certificates import expiry_warnings

        for text in expiry_warnings(found):
            print_error(f"warning: {text}")
    if (unit is None or unit.is_root) and privileges.serves_as_root(result.config.daemon):
        print_error(
            "warning: daemon.user is not set, so the handlers run as root; set it, e.g. to nobody"
        )
