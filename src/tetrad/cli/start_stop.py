"""`tetrad run`, `start`, `stop` and `restart`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from tetrad.cli import systemctl
from tetrad.cli.check import check_functions, prepare, print_warnings, read_certificates, starter_of
from tetrad.cli.configuration import (
    config_path,
    find_daemon,
    load,
    load_for_running,
    not_running,
    require_same_file,
    running_pid,
)
from tetrad.cli.exit_status import FAILURE, OK, PERMISSION, CommandError, of_signal, print_line
from tetrad.config.diagnostics import ConfigError
from tetrad.ipc import control_client
from tetrad.ipc.control_messages import Status
from tetrad.launch import privileges, running_daemon
from tetrad.launch.launcher import AlreadyRunning, Launcher
from tetrad.launch.preflight import Starter, StartError, port_problems
from tetrad.launch.start_signals import Interrupted
from tetrad.system.journal import is_journal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from tetrad.cli.systemctl import Unit
    from tetrad.config.model import Listener
    from tetrad.config.result import ConfigResult

STOP_MARGIN_SECONDS = 10.0
"""How long beyond `daemon.stop_timeout` a stop may take before the command fails."""

LAST_MOMENT_SECONDS = 1.0
"""How long a process without a control socket gets to exit before it counts as running."""

NOT_STOPPED = "not stopped, because the daemon could not start again"


def run(options: argparse.Namespace) -> int:
    """Serve in the foreground, with the daemon as a child or, without a terminal, in its place."""
    result = load(options).checked()
    launcher = _launcher(result, options, foreground=True)

    def announce() -> None:
        for (name, service), listener in zip(launcher.listening, result.config.listen, strict=True):
            print_line(f"tetrad: {service} service at {name}; {_usage(name, service, listener)}")
        if not is_journal(sys.stdout.fileno()):
            print_line("tetrad: Ctrl-C stops it")
        sys.stdout.flush()
        print_warnings(result, launcher, has_user=_has_unit_user(result, options))

    try:
        status = launcher.run(announce)
    except AlreadyRunning as running:
        systemctl.require_own_unit(running.pid)
        raise CommandError(str(running), FAILURE) from None
    except (StartError, Interrupted) as error:
        raise _command_error(error) from None
    return of_signal(-status) if status < 0 else status


def start(options: argparse.Namespace) -> int:
    """Start the daemon, by systemctl if a unit has its file."""
    if (unit := systemctl.unit_of(options)) is not None:
        return _start_unit(unit, "start", options)
    result = load(options).checked()
    print_line(_start(result, _launcher(result, options, foreground=False), options))
    return OK


def stop(options: argparse.Namespace) -> int:
    """Stop the daemon, even if its file has errors; by systemctl if a unit has its file."""
    unit = systemctl.unit_of(options)
    if unit is not None and not unit.is_stopped:
        return _stop_unit(unit, options)
    result = load_for_running(options, "daemon.pidfile")
    if unit is not None:
        unit.require(running_pid(result))
    print_line(_stop(result))
    return OK


def restart(options: argparse.Namespace) -> int:
    """Stop and start the daemon, after checks that find most reasons why it could not start."""
    if (unit := systemctl.unit_of(options)) is not None:
        return _start_unit(unit, "restart", options)
    result = load(options).checked()
    launcher = _prepare(result, options, Starter(), NOT_STOPPED, foreground=False)
    daemon = find_daemon(result)
    if daemon is not None:
        require_same_file(daemon, result)
        _require_free_ports(result)
    messages = [_stop(result)]
    try:
        messages.append(_start(result, launcher, options))
    finally:
        # Not earlier: an error of standard output must not prevent the start.
        for message in messages:
            print_line(message)
    return OK


def _prepare(
    result: ConfigResult,
    options: argparse.Namespace,
    starter: Starter,
    *consequence: str,
    foreground: bool,
) -> Launcher:
    """Return the launcher of a start that nothing is known to prevent. Raises CommandError."""
    launcher, found = prepare(result, options, starter, foreground=foreground)
    problems = [one for one in found if not one.is_later]
    if problems:
        status = PERMISSION if any(one.is_permission for one in problems) else FAILURE
        raise CommandError("; ".join([*consequence, *(one.text for one in problems)]), status)
    return launcher


def _require_free_ports(result: ConfigResult) -> None:
    """Raise CommandError if another program has a port that the running daemon does not free."""
    try:
        status = running_daemon.ask(result.config.daemon, "status", Status)
    except control_client.ControlError:
        return  # the start finds it
    own = [(one.address, one.port) for one in status.listeners if one.port is not None]
    if problems := port_problems(result, own):
        text = "; ".join([NOT_STOPPED, *(one.text for one in problems)])
        raise CommandError(text, FAILURE)


def _start_unit(unit: Unit, verb: str, options: argparse.Namespace) -> int:
    """Start or restart the unit (`verb`), after the checks of a restart."""
    starter = starter_of(unit)
    result = load(options).checked()
    daemon = find_daemon(result)
    pid = None if daemon is None else daemon.pid
    if verb == "start" and pid is not None and not _is_stopping(result, pid):
        note = "" if unit.owns(pid) else f"; {unit.foreign(pid)}"
        print_line(f"tetrad: already running (pid {pid}){note}")
        return OK
    unit.require(pid)
    consequence = [NOT_STOPPED] if verb == "restart" else []
    _prepare(result, options, starter, *consequence, foreground=unit.is_foreground)
    if pid is not None and not unit.has_socket:
        _require_free_ports(result)
    print_line(f"tetrad: {unit.do(verb)}")
    try:
        status = running_daemon.ask(result.config.daemon, "status", Status)
    except control_client.ControlError as error:
        raise CommandError(str(error), FAILURE) from None
    print_line(_started(status.pid, ((one.name, one.service) for one in status.listeners)))
    return OK


def _stop_unit(unit: Unit, options: argparse.Namespace) -> int:
    """Stop the unit, also if it has no daemon and systemd is about to try another start."""
    absent = "not running"
    with contextlib.suppress(ConfigError):
        result = load_for_running(options, "daemon.pidfile")
        unit.require(running_pid(result))
        absent = f"{absent} (pidfile {result.config.daemon.pidfile})"
    print_line(f"tetrad: {unit.do('stop')}")
    no_daemon = f"{absent}; {unit.name} makes no more tries to start"
    print_line(f"tetrad: {f'stopped (pid {unit.main_pid})' if unit.main_pid else no_daemon}")
    return OK


def _launcher(result: ConfigResult, options: argparse.Namespace, *, foreground: bool) -> Launcher:
    certificates = read_certificates(result)
    check_functions(result)
    return Launcher(result, config_path(options), certificates, foreground=foreground)


def _has_unit_user(result: ConfigResult, options: argparse.Namespace) -> bool:
    """Tell whether a unit has the file, and a user: then `daemon.user` must not be set."""
    if not privileges.serves_as_root(result.config.daemon):
        return False
    with contextlib.suppress(CommandError):
        unit = systemctl.find_unit(options)
        return unit is not None and not unit.is_root
    return False


def _start(result: ConfigResult, launcher: Launcher, options: argparse.Namespace) -> str:
    """Start the daemon unless it runs, and return a message for the operator.

    If it runs but is stopping, the new one is started after it has exited.
    """
    try:
        try:
            started = launcher.start()
        except AlreadyRunning as running:
            if not _is_stopping(result, running.pid):
                raise
            seconds = result.config.daemon.stop_timeout + STOP_MARGIN_SECONDS
            if not control_client.wait_for_exit(running.pid, seconds):
                message = f"{running}, and still stopping after {seconds:.0f} s"
                raise CommandError(message, FAILURE) from None
            started = launcher.start()
    except AlreadyRunning as running:
        systemctl.require_own_unit(running.pid)
        return f"tetrad: {running}"
    except (StartError, Interrupted) as error:
        raise _command_error(error) from None
    print_warnings(result, launcher, has_user=_has_unit_user(result, options))
    return _started(started["pid"], started["listening"])


def _started(pid: int, listening: Iterable[tuple[str, str]]) -> str:
    listeners = ", ".join(f"{name} ({service})" for name, service in listening)
    return f"tetrad: started (pid {pid}), listening on {listeners}"


def _command_error(error: StartError | Interrupted) -> CommandError:
    """Return the error of the command for a start that failed."""
    if isinstance(error, Interrupted):
        return CommandError(str(error), of_signal(error.number))
    return CommandError(str(error), PERMISSION if error.is_permission else FAILURE)


def _is_stopping(result: ConfigResult, pid: int) -> bool:
    """Tell whether the running daemon accepts no more clients and is about to exit.

    At the end of a stop the control socket is closed before the process exits.
    """
    try:
        status = running_daemon.ask(result.config.daemon, "status", Status)
    except control_client.ControlError as error:
        # A pid of 0 is in another PID namespace.
        is_gone = pid > 0 and not error.is_permission
        return is_gone and control_client.wait_for_exit(pid, LAST_MOMENT_SECONDS)
    return status.state == "stopping"


def _stop(result: ConfigResult) -> str:
    """Stop the daemon if it runs, and return a message for the operator."""
    daemon = find_daemon(result)
    if daemon is None:
        return f"tetrad: {not_running(result)}"
    if not daemon.pid:
        raise CommandError("the daemon is in another PID namespace: stop it there", FAILURE)
    pid, seconds = daemon.pid, result.config.daemon.stop_timeout + STOP_MARGIN_SECONDS
    try:
        has_exited = running_daemon.terminate(daemon, seconds)
    except PermissionError:
        who = "only root and the daemon's user may" if os.geteuid() else "root needs CAP_KILL to"
        text = f"pid {pid}: permission denied; {who} stop it"
        raise CommandError(text, PERMISSION) from None
    if not has_exited:
        raise CommandError(
            f"pid {pid} still runs after {seconds:.0f} s; kill -QUIT {pid} stops it at once",
            FAILURE,
        )
    return f"tetrad: stopped (pid {pid})"


def _usage(name: str, service: str, listener: Listener) -> str:
    """Return a command line to try a listener with."""
    if listener.proxy is not None:
        return "for load balancers that send a PROXY header"
    tls = " --tls" if listener.tls is not None else ""
    if name.startswith("unix:"):
        return f"try: tetrad client --host {name} --service {service}{tls}"
    host, _, port = name.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - a name
    if tls:
        return f"try: tetrad client --host {host} --port {port} --service {service}{tls}"
    text = "hello" if service == "echo" else "timequit"
    return f"try: printf {text} | nc {host} {port}"
