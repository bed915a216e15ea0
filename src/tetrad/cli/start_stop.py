"""run, start, stop, restart, reload, upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tetrad.cli.configuration import check_certificates, explicit, find, load, running_pid, warn
from tetrad.cli.exit_status import FAILURE, NOT_RUNNING, OK, PERMISSION, CommandError, of_signal
from tetrad.config.result import ConfigError
from tetrad.system.text import escape_unprintable

if TYPE_CHECKING:
    import argparse

    from tetrad.config.model import Listener
    from tetrad.config.result import ConfigResult

RELOAD_PATIENCE_SECONDS = 40.0
"""How long a reload may take; the daemon reads a file first."""

UPGRADE_PATIENCE_SECONDS = 90.0
"""How long an upgrade may take; the daemon may be reloading, then tries the new version first."""

STOP_MARGIN_SECONDS = 10.0
"""How long beyond `daemon.stop_timeout` a stop may take before we say that it failed."""


def run(options: argparse.Namespace) -> int:
    """Serve in the foreground: this process becomes the master."""
    from tetrad.launch import launcher
    from tetrad.launch.start_signals import Interrupted

    loaded = load(options).checked()
    try:
        front = launcher.Launcher(loaded, explicit(options), foreground=True)
        with front.run():
            for (name, service), listener in zip(
                front.listening, loaded.config.listen, strict=True
            ):
                how = _how_to_talk(name, service, listener)
                print(f"tetrad: {service} service at {name}; {how}")
            print("tetrad: Ctrl-C stops it", flush=True)
            warn(loaded)
    except launcher.AlreadyRunning as running:
        raise CommandError(str(running), FAILURE) from None
    except launcher.StartError as error:
        raise CommandError(str(error), PERMISSION if error.permission else FAILURE) from None
    except Interrupted as interrupted:
        raise CommandError(str(interrupted), of_signal(interrupted.number)) from None
    return FAILURE


def start(options: argparse.Namespace) -> int:
    """Start the daemon."""
    loaded = load(options).checked()
    print(_start(loaded, explicit(options)))
    return OK


def stop(options: argparse.Namespace) -> int:
    """Stop the daemon. A file with problems is no reason to let it run."""
    print(_stop(find(options, "daemon.pidfile")))
    return OK


def restart(options: argparse.Namespace) -> int:
    """Stop the daemon and start it again, unless its new configuration is bad."""
    from tetrad.launch import preflight

    loaded = load(options).checked()
    check_certificates(loaded)
    if found := preflight.problems(loaded.config):
        status = PERMISSION if any(one.is_permission for one in found) else FAILURE
        raise CommandError("; ".join(["nothing is stopped", *(one.text for one in found)]), status)
    said = [_stop(loaded)]
    try:
        said.append(_start(loaded, explicit(options)))
    finally:
        # Not before: whoever does not listen must not be the reason that there is no daemon.
        print(*said, sep="\n")
    return OK


def reload(options: argparse.Namespace) -> int:
    """Have the daemon apply its file, and say what came of it."""
    from tetrad.ipc import control_client
    from tetrad.ipc.control_messages import Reloaded

    loaded = load(options).checked()
    if running_pid(loaded) is None:
        raise CommandError("not running", NOT_RUNNING)
    try:
        outcome = control_client.ask(
            loaded.config.daemon.control, "reload", Reloaded, RELOAD_PATIENCE_SECONDS
        )
    except control_client.ControlError as error:
        raise CommandError(str(error), _no_answer_status(error)) from None
    if outcome.errors is not None:
        if outcome.is_file_bad:
            raise ConfigError(["not reloaded; the old configuration serves on", *outcome.errors])
        raise CommandError("; ".join(["not reloaded", *outcome.errors]), FAILURE)
    changes = outcome.changes or {}
    print("tetrad: reloaded;", "changed:" if changes else "nothing has changed")
    _tell(changes)
    return OK


def upgrade(options: argparse.Namespace) -> int:
    """Have the daemon become the version that is installed, and say what came of it."""
    from tetrad.ipc import control_client
    from tetrad.ipc.control_messages import Upgraded

    loaded = load(options).checked()
    if running_pid(loaded) is None:
        raise CommandError("not running", NOT_RUNNING)
    try:
        outcome = control_client.ask(
            loaded.config.daemon.control, "upgrade", Upgraded, UPGRADE_PATIENCE_SECONDS
        )
    except control_client.ControlError as error:
        if running_pid(loaded) is None:
            raise CommandError("the daemon has ended; its log may say why", FAILURE) from None
        raise CommandError(str(error), _no_answer_status(error)) from None
    if outcome.errors is not None:
        problems = ["not upgraded; the old version serves on", *outcome.errors]
        if outcome.is_file_bad:
            raise ConfigError(problems)
        raise CommandError(": ".join(problems), FAILURE)
    kept = f"{outcome.sessions} session{'' if outcome.sessions == 1 else 's'} kept"
    print(f"tetrad: upgraded {outcome.old} -> {outcome.version} (pid {outcome.pid}, {kept})")
    _tell(outcome.changes)
    return OK


def _tell(changes: dict[str, str]) -> None:
    for key, change in changes.items():
        print(escape_unprintable(f"  {key}: {change}"))


def _start(loaded: ConfigResult, explicit: str | None) -> str:
    """Start the daemon, unless it runs, and return what is to be said of that.

    One that is about to end is waited for: it serves nobody any more.
    """
    from tetrad.ipc import control_client
    from tetrad.launch import launcher
    from tetrad.launch.start_signals import Interrupted

    try:
        front = launcher.Launcher(loaded, explicit, foreground=False)
        try:
            outcome = front.start()
        except launcher.AlreadyRunning as running:
            if not _is_stopping(loaded):
                raise
            seconds = loaded.config.daemon.stop_timeout + STOP_MARGIN_SECONDS
            if not control_client.wait_for_exit(running.pid, seconds):
                text = f"{running}, and stopping, for {seconds:.0f} s"
                raise CommandError(text, FAILURE) from None
            outcome = front.start()
    except launcher.AlreadyRunning as running:
        return f"tetrad: {running}"
    except launcher.StartError as error:
        raise CommandError(str(error), PERMISSION if error.permission else FAILURE) from None
    except Interrupted as interrupted:
        raise CommandError(str(interrupted), of_signal(interrupted.number)) from None
    places = ", ".join(f"{name} ({service})" for name, service in outcome["listening"])
    warn(loaded)
    return f"tetrad: started (pid {outcome['pid']}), listening on {places}"


def _is_stopping(loaded: ConfigResult) -> bool:
    """Tell whether the daemon that runs is about to end."""
    from tetrad.ipc import control_client
    from tetrad.ipc.control_messages import Status

    try:
        return (
            control_client.ask(loaded.config.daemon.control, "status", Status).state == "stopping"
        )
    except control_client.ControlError:
        return False


def _stop(loaded: ConfigResult) -> str:
    """Stop the daemon, if it runs, and return what is to be said of that."""
    from tetrad.ipc import control_client

    pid = running_pid(loaded)
    if pid is None:
        return "tetrad: not running"
    seconds = loaded.config.daemon.stop_timeout + STOP_MARGIN_SECONDS
    try:
        gone = control_client.terminate(pid, seconds)
    except PermissionError:
        raise CommandError(f"no permission to stop pid {pid}", PERMISSION) from None
    if not gone:
        raise CommandError(
            f"pid {pid} is still there after {seconds:.0f} s; kill -QUIT {pid} ends it at once",
            FAILURE,
        )
    return f"tetrad: stopped (pid {pid})"


def _no_answer_status(error: BaseException) -> int:
    return PERMISSION if isinstance(error.__cause__, PermissionError) else FAILURE


def _how_to_talk(name: str, service: str, listener: Listener) -> str:
    if listener.proxy is not None:
        return "for balancers, by the PROXY protocol"
    encrypted = " --tls" if listener.tls is not None else ""
    if name.startswith("unix:"):
        return f"try: tetrad client --host {name} --service {service}{encrypted}"
    host, _, port = name.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - a name
    if encrypted:
        return f"try: tetrad client --host {host} --port {port} --service {service}{encrypted}"
    text = "hello" if service == "echo" else "timequit"
    return f"try: printf {text} | nc {host} {port}"
