"""`tetrad reload` and `tetrad upgrade`: requests to the running daemon, and their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tetrad import __version__
from tetrad.cli.configuration import find_daemon, load, not_running, running_pid
from tetrad.cli.exit_status import FAILURE, NOT_RUNNING, OK, PERMISSION, CommandError, print_line
from tetrad.config.diagnostics import ConfigError
from tetrad.ipc import control_client
from tetrad.ipc.control_messages import Reloaded, Upgraded
from tetrad.launch import running_daemon
from tetrad.system import exec_commands

if TYPE_CHECKING:
    import argparse

    from tetrad.config.model import Daemon
    from tetrad.config.result import ConfigResult

RELOAD_TIMEOUT_SECONDS = 40.0
"""How long a reload may take: another process reads the file first."""

UPGRADE_TIMEOUT_SECONDS = 90.0
"""How long an upgrade may take: it may wait for a reload, and the new version is tried first."""


def reload(options: argparse.Namespace) -> int:
    """Make the daemon read its file again, and print what changed."""
    daemon = _running(load(options).checked())
    try:
        outcome = running_daemon.ask(daemon, "reload", Reloaded, RELOAD_TIMEOUT_SECONDS)
    except control_client.ControlError as error:
        raise _command_error(error) from None
    if outcome.errors is not None:
        if outcome.is_file_bad:
            kept = "not reloaded; the old configuration stays in effect"
            raise ConfigError([kept, *outcome.errors])
        raise CommandError("; ".join(["not reloaded", *outcome.errors]), FAILURE)
    changes = outcome.changes or {}
    print_line(f"tetrad: reloaded; {'changed:' if changes else 'nothing changed'}")
    _print_changes(changes)
    return OK


def upgrade(options: argparse.Namespace) -> int:
    """Replace the running daemon by the version of this command, and print what changed."""
    result = load(options).checked()
    daemon = _running(result)
    try:
        outcome = _request_upgrade(daemon)
    except control_client.ControlError as error:
        if running_pid(result) is None:
            message = "the daemon exited during the upgrade; its log may have the reason"
            raise CommandError(message, FAILURE) from None
        raise _command_error(error) from None
    if outcome.errors is not None:
        problems = ["not upgraded; the old version keeps serving", *outcome.errors]
        if outcome.is_file_bad:
            raise ConfigError(problems)
        raise CommandError(": ".join(problems), FAILURE)
    if outcome.version != __version__:
        text = f"the daemon became version {outcome.version}, which is installed in its own place"
        message = f"{text}, not version {__version__} of this command: use tetrad restart"
        raise CommandError(message, FAILURE)
    kept = f"{outcome.sessions} session{'' if outcome.sessions == 1 else 's'} kept"
    print_line(f"tetrad: upgraded {outcome.old} -> {outcome.version} (pid {outcome.pid}, {kept})")
    _print_changes(outcome.changes)
    return OK


def _request_upgrade(daemon: Daemon) -> Upgraded:
    """Request an upgrade to the version of this command. Raises ControlError.

    A daemon of a release that does not know this request becomes what is installed in its place.
    """
    command = "\0".join(exec_commands.command("helpers.upgrade_trial"))
    kind, seconds = Upgraded, UPGRADE_TIMEOUT_SECONDS
    try:
        return running_daemon.ask(daemon, f"upgrade-to {command}", kind, seconds)
    except control_client.UnknownRequestError:
        return running_daemon.ask(daemon, "upgrade", kind, seconds)


def _running(result: ConfigResult) -> Daemon:
    """Return the settings of the running daemon; raise CommandError if none runs."""
    if find_daemon(result) is None:
        raise CommandError(not_running(result), NOT_RUNNING)
    return result.config.daemon


def _command_error(error: control_client.ControlError) -> CommandError:
    return CommandError(str(error), PERMISSION if error.is_permission else FAILURE)


def _print_changes(changes: dict[str, str]) -> None:
    for key, change in changes.items():
        print_line(f"  {key}: {change}")
