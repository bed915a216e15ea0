"""The command line: the only printer, and the only owner of exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from tetrad import __version__, configfile, pidfile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tetrad.configfile import Loaded

OK = 0
FAILURE = 1
USAGE = 2
PERMISSION = 4
NOT_RUNNING = 7
BAD_CONFIGURATION = 78
INTERRUPTED = 130

DEBUG_VARIABLE = "TETRAD_DEBUG"

STATUS_RUNNING, STATUS_DEAD, STATUS_STOPPED, STATUS_UNKNOWN = 0, 1, 3, 4
"""As the Linux Standard Base has them."""

STOP_MARGIN_SECONDS = 10.0
"""How long beyond `daemon.stop_timeout` a stop may take before we say that it failed."""


class CommandError(Exception):
    """A command failed; the text is for standard error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    options = parser().parse_args(arguments)
    try:
        status = options.command(options)
        sys.stdout.flush()
    except CommandError as error:
        _complain(str(error))
        status = error.status
    except configfile.ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        status = BAD_CONFIGURATION
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILURE
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        if DEBUG_VARIABLE in os.environ:
            raise
        _complain(f"a defect in tetrad: {error!r}; set {DEBUG_VARIABLE}=1 to see where")
        status = FAILURE
    sys.exit(status)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="the configuration (else $TETRAD_CONFIG, /etc/tetrad/tetrad.yaml, built-in defaults)",
    )
    common.add_argument("--version", action="version", version=f"tetrad {__version__}")
    top = argparse.ArgumentParser(
        prog="tetrad",
        description="A daemon that forks a process per TCP client and answers four-byte commands.",
        parents=[common],
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        # A -c before the command must not be undone by the default of the one behind it.
        sub = commands.add_parser(
            name, help=text, description=text, parents=[common], argument_default=argparse.SUPPRESS
        )
        sub.set_defaults(command=command)
        return sub

    add("run", run, "serve in the foreground, with the log on the terminal")
    add("start", start, "start the daemon, and return once it accepts clients")
    add("stop", stop, "stop the daemon, and return once it is gone")
    add("restart", restart, "stop the daemon and start it again")
    add("reload", reload, "have the daemon apply its configuration file again")
    status_parser = add("status", status, "say whether the daemon runs, and how it is")
    status_parser.set_defaults(format="text")
    status_parser.add_argument(
        "--format", choices=("text", "json", "openmetrics"), help="for people, programs, Prometheus"
    )
    status_parser.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="format",
        help="as --format json",
    )
    status_parser.add_argument(
        "--clients", action="store_true", default=False, help="list the sessions"
    )
    status_parser.add_argument(
        "--schema", action="store_true", default=False, help="print the JSON Schema of --json"
    )
    check_parser = add("check", check, "validate the configuration")
    check_parser.add_argument(
        "--dump",
        action="store_true",
        default=False,
        help="print the effective configuration as YAML",
    )
    client_parser = add("client", client, "talk to a tetrad, by hand or in words")
    client_parser.add_argument(
        "--host", default=None, help="address, name or unix:PATH (127.0.0.1)"
    )
    client_parser.add_argument("--port", type=_port, default=None, help="TCP port (65000)")
    client_parser.add_argument(
        "--service",
        choices=("command", "echo"),
        default=None,
        help="what is served there (command)",
    )
    client_parser.add_argument("words", nargs="*", metavar="WORD", help="what to send")
    return top


def run(options: argparse.Namespace) -> int:
    """Serve in the foreground: this process becomes the master."""
    from tetrad import launch

    loaded = _load(options).checked()
    try:
        front = launch.Front(loaded, _explicit(options), foreground=True)
        with front.run():
            for name, service in front.listening:
                print(f"tetrad: {service} service at {name}; {_how_to_talk(name, service)}")
            print("tetrad: Ctrl-C stops it", flush=True)
    except launch.AlreadyRunning as running:
        raise CommandError(str(running), FAILURE) from None
    except launch.StartError as error:
        raise CommandError(str(error), PERMISSION if error.permission else FAILURE) from None
    return FAILURE


def start(options: argparse.Namespace) -> int:
    """Start the daemon."""
    return _start(_load(options).checked(), _explicit(options))


def stop(options: argparse.Namespace) -> int:
    """Stop the daemon. A file with problems is no reason to let it run."""
    _stop(_load(options))
    return OK


def restart(options: argparse.Namespace) -> int:
    """Stop the daemon and start it again, unless its new configuration is bad."""
    loaded = _load(options).checked()
    _stop(loaded)
    return _start(loaded, _explicit(options))


def reload(options: argparse.Namespace) -> int:
    """Have the daemon apply its file, and say what came of it."""
    from tetrad import remote

    loaded = _load(options).checked()
    if _pid(loaded) is None:
        raise CommandError("not running", NOT_RUNNING)
    try:
        outcome = remote.ask(loaded.config.daemon.control, "reload", dict)
    except remote.NoAnswerError as error:
        raise CommandError(str(error), _no_answer_status(error)) from None
    if "errors" in outcome:
        raise configfile.ConfigError(
            ["not reloaded; the old configuration serves on", *outcome["errors"]]
        )
    changes = outcome["changes"]
    print("tetrad: reloaded;", "changed:" if changes else "nothing has changed")
    for key, change in changes.items():
        print(f"  {key}: {change}")
    return OK


def status(options: argparse.Namespace) -> int:
    """Say whether the daemon runs, and how it is."""
    from tetrad import remote, report
    from tetrad import status as model

    if options.schema:
        print(report.as_json(model.schema()))
        return OK
    loaded = _load(options)
    path = loaded.config.daemon.pidfile
    try:
        state = pidfile.look(path)
    except OSError as error:
        raise CommandError(f"{path}: {(error.strerror or '').lower()}", STATUS_UNKNOWN) from None
    if state.pid is None:
        return _report_absence(options.format, left=state.left)
    try:
        answer = remote.ask(loaded.config.daemon.control, "status", model.Status)
    except remote.NoAnswerError as error:
        raise CommandError(
            f"running (pid {state.pid}), but no word from it: {error}", STATUS_UNKNOWN
        ) from None
    if options.format == "json":
        print(report.as_json(answer))
    elif options.format == "openmetrics":
        print(report.as_openmetrics(answer))
    else:
        print(report.as_sessions(answer) if options.clients else report.as_text(answer))
    return STATUS_RUNNING


def _report_absence(style: str, *, left: bool) -> int:
    from tetrad import report

    if style == "json":
        print(report.as_json({"state": "dead" if left else "stopped"}))
    elif style == "openmetrics":
        print(report.as_openmetrics_down())
    else:
        print("tetrad:", "dead, but its pidfile is left" if left else "not running")
    return STATUS_DEAD if left else STATUS_STOPPED


def check(options: argparse.Namespace) -> int:
    """Validate the configuration."""
    loaded = _load(options).checked()
    if options.dump:
        print(configfile.dump(loaded.config), end="")
    else:
        print(f"{loaded.file or 'built-in defaults'}: configuration OK")
    return OK


def client(options: argparse.Namespace) -> int:
    """Talk to a tetrad."""
    from tetrad import client as talk

    host, port = options.host or "127.0.0.1", options.port or 65000
    service = options.service or "command"
    try:
        with talk.Connection(host, port) as connection:
            if options.words:
                for answer in talk.say(connection, service, options.words):
                    print(answer, flush=True)
            else:
                talk.converse(connection, service)
    except OSError as error:
        raise CommandError(
            f"{host}:{port}: {(error.strerror or str(error)).lower()}", FAILURE
        ) from None
    return OK


def _start(loaded: Loaded, explicit: str | None) -> int:
    from tetrad import launch

    try:
        outcome = launch.Front(loaded, explicit, foreground=False).start()
    except launch.AlreadyRunning as running:
        print(f"tetrad: {running}")
        return OK
    except launch.StartError as error:
        raise CommandError(str(error), PERMISSION if error.permission else FAILURE) from None
    places = ", ".join(f"{name} ({service})" for name, service in outcome["listening"])
    print(f"tetrad: started (pid {outcome['pid']}), listening on {places}")
    return OK


def _stop(loaded: Loaded) -> None:
    from tetrad import remote

    pid = _pid(loaded)
    if pid is None:
        print("tetrad: not running")
        return
    seconds = loaded.config.daemon.stop_timeout + STOP_MARGIN_SECONDS
    try:
        gone = remote.terminate(pid, seconds)
    except PermissionError:
        raise CommandError(f"no permission to stop pid {pid}", PERMISSION) from None
    if not gone:
        raise CommandError(
            f"pid {pid} is still there after {seconds:.0f} s; kill -QUIT {pid} ends it at once",
            FAILURE,
        )
    print(f"tetrad: stopped (pid {pid})")


def _load(options: argparse.Namespace) -> Loaded:
    file = configfile.find(options.config)
    try:
        return configfile.load(file)
    except PermissionError:
        raise CommandError(f"{file}: permission denied", PERMISSION) from None
    except OSError as error:
        raise CommandError(
            f"{file}: {(error.strerror or str(error)).lower()}", BAD_CONFIGURATION
        ) from None


def _explicit(options: argparse.Namespace) -> str | None:
    return os.path.abspath(options.config) if options.config else None


def _pid(loaded: Loaded) -> int | None:
    path = loaded.config.daemon.pidfile
    try:
        return pidfile.look(path).pid
    except PermissionError:
        raise CommandError(f"{path}: permission denied", PERMISSION) from None
    except OSError as error:
        raise CommandError(f"{path}: {(error.strerror or '').lower()}", FAILURE) from None


def _no_answer_status(error: BaseException) -> int:
    return PERMISSION if isinstance(error.__cause__, PermissionError) else FAILURE


def _how_to_talk(name: str, service: str) -> str:
    if name.startswith("unix:"):
        return f"try: tetrad client --host {name} --service {service}"
    host, _, port = name.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - a name
    text = "hello" if service == "echo" else "timequit"
    return f"try: printf {text} | nc {host} {port}"


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 1 << 16:
        message = "a port is a number from 1 to 65535"
        raise argparse.ArgumentTypeError(message)
    return port


def _complain(message: str) -> None:
    print(f"tetrad: {message}", file=sys.stderr)
