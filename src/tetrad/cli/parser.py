"""The parser of the command line, with the help of each command and option."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tetrad import __version__
from tetrad.ipc.log_protocol import LEVELS

if TYPE_CHECKING:
    import datetime as dt
    import ipaddress

DEFAULT_LINES = 20
"""How many lines of the log are shown."""


def parser() -> argparse.ArgumentParser:
    """Return the parser; the name of the command is the attribute `command` of its result."""
    top = argparse.ArgumentParser(
        prog="tetrad",
        description="A TCP daemon that forks one process per client and answers"
        " four-byte commands.",
        parents=[_common_options(default=None)],
    )
    commands = top.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )

    def add(name: str, text: str) -> argparse.ArgumentParser:
        # With a default, the options after the command would reset those before it.
        parents = [_common_options(default=argparse.SUPPRESS)]
        return commands.add_parser(name, help=text, description=text, parents=parents)

    add("run", "serve in the foreground, with the log on the terminal")
    _add_by_hand(add("start", "start the daemon; return when it accepts clients"))
    _add_by_hand(add("stop", "stop the daemon; return when it has exited"))
    _add_by_hand(add("restart", "check that the daemon can start, then stop and start it"))
    add("reload", "make the daemon read its configuration file again")
    add("upgrade", "replace the running daemon by the installed version, keeping its sessions")
    _add_status(add("status", "show the state of the daemon"))
    _add_logs(add("logs", "show the log in a readable form"))
    _add_explain(add("explain", "show whether a client would be let in, and why"))
    _add_check(add("check", "check the configuration file"))
    _add_client(add("client", "connect to a daemon and send commands"))
    _add_install(add("install", "install the files of the service"))
    _add_target(add("uninstall", "remove the files of the service"))
    return top


def _common_options(*, default: str | None) -> argparse.ArgumentParser:
    """Return the options that may be given before and after the command."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-c",
        "--config",
        type=_file,
        metavar="FILE",
        default=default,
        help="configuration file (default: $TETRAD_CONFIG, then /etc/tetrad/tetrad.yaml if it"
        " exists, then the built-in defaults)",
    )
    common.add_argument("--version", action="version", version=f"tetrad {__version__}")
    return common


def _add_by_hand(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-systemd",
        action="store_true",
        help="do not use systemctl (default: root uses it if a unit has this file)",
    )


def _add_status(status: argparse.ArgumentParser) -> None:
    status.add_argument(
        "--format",
        choices=("text", "json", "prometheus", "openmetrics"),
        default="text",
        help="output format; prometheus is also for node_exporter's textfile collector"
        " (default: %(default)s)",
    )
    status.add_argument(
        "--json", action="store_const", const="json", dest="format", help="same as --format json"
    )
    status.add_argument("--clients", action="store_true", help="list the sessions")
    status.add_argument("--schema", action="store_true", help="print the JSON Schema of --json")


def _add_logs(logs: argparse.ArgumentParser) -> None:
    logs.add_argument("-f", "--follow", action="store_true", help="show new lines as they come")
    logs.add_argument(
        "-n",
        "--lines",
        type=_count,
        metavar="N",
        help=f"show the last N lines (default: {DEFAULT_LINES}; with --since, all)",
    )
    logs.add_argument(
        "--client", type=_network, metavar="NETWORK", help="only clients of a network"
    )
    logs.add_argument("--connection", metavar="ID", help="only one session")
    logs.add_argument("--event", metavar="GLOB", help="only matching events, e.g. client.*")
    logs.add_argument("--level", choices=tuple(LEVELS), help="only this level and higher ones")
    logs.add_argument("--reason", metavar="GLOB", help="only matching reasons, e.g. *_timeout")
    logs.add_argument(
        "--since",
        type=_moment,
        metavar="TIME",
        help="only events from TIME on: a span before now, e.g. 10m, a clock time, e.g. 16:18, or a"
        ' date, e.g. "2026-11-22 16:18"',
    )
    logs.add_argument(
        "--until", type=_moment, metavar="TIME", help="only events up to TIME, as for --since"
    )
    logs.add_argument("--json", action="store_true", help="print events as JSON, one a line")


def _add_explain(explain: argparse.ArgumentParser) -> None:
    explain.add_argument(
        "address", type=_address, metavar="ADDRESS", help="IPv4 or IPv6 address of the client"
    )


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--dump", action="store_true", help="print the effective configuration as YAML"
    )
    check.add_argument(
        "--user",
        type=_user,
        metavar="NAME",
        help="check as if this user started the daemon (default: the user of its unit,"
        " or of this process)",
    )
    check.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of the file, for editors"
    )


def _add_client(client: argparse.ArgumentParser) -> None:
    client.add_argument(
        "--host",
        help="address, host name or unix:PATH (default: the first listener of the file)",
    )
    client.add_argument(
        "--port", type=_port, help="TCP port (default: that of the first listener of the file)"
    )
    client.add_argument(
        "--service",
        choices=("command", "echo"),
        help="service of the listener (default: that of the first listener;"
        " with --host or --port: command)",
    )
    client.add_argument("--tls", action="store_true", help="use TLS and verify the server")
    client.add_argument(
        "--ca",
        metavar="FILE",
        help="CA bundle, in PEM; implies --tls (default: the CAs of this system)",
    )
    client.add_argument(
        "--cert",
        metavar="FILE",
        help="client certificate and intermediate ones, in PEM; implies --tls",
    )
    client.add_argument(
        "--key", metavar="FILE", help="private key of --cert (default: in the same file)"
    )
    client.add_argument(
        "--insecure", action="store_true", help="use TLS, but do not verify the server"
    )
    client.add_argument(
        "--timeout",
        type=_duration,
        metavar="SPAN",
        default="2s",
        help="how long to wait for an answer, e.g. 500ms or 1m (default: %(default)s)",
    )
    client.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="commands to send (default: read them from standard input)",
    )


def _add_install(install: argparse.ArgumentParser) -> None:
    _add_target(install)
    install.add_argument(
        "--socket",
        action=argparse.BooleanOptionalAction,
        help="let systemd listen, now and at boot, or no longer (default: no change)",
    )


def _add_target(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--root", metavar="DIR", default="/", help="prefix of every path (default: /)"
    )
    command.add_argument("--dry-run", action="store_true", help="print what would be done")


# Types of arguments. An empty file name is refused: it usually is a variable that is not set.


def _file(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a file")
    return text


def _user(text: str) -> str:
    from tetrad.system import users

    try:
        return users.user_name(users.user(text)[0])
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"this machine has no user {text!r}") from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError("expected a port number from 1 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("expected a number of lines")
    return int(text)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    import ipaddress

    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError("expected a network such as 192.0.2.0/24") from None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    import ipaddress

    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise argparse.ArgumentTypeError("expected an IPv4 or IPv6 address") from None


def _moment(text: str) -> float | dt.datetime | dt.time:
    """Read a span before now in seconds, or a local time or date and time in ISO 8601."""
    import datetime as dt

    try:
        if "-" in text:
            moment = dt.datetime.fromisoformat(text)
            moment.timestamp()  # fails for a year that the local time zone does not have
            return moment
        return dt.time.fromisoformat(text) if ":" in text else _duration(text)
    except (ValueError, OverflowError, argparse.ArgumentTypeError):
        expected = "a duration such as 10m, a number of seconds, a time such as 16:18"
        message = f'expected {expected} or a date such as "2026-11-22 16:18"'
        raise argparse.ArgumentTypeError(message) from None


def _duration(text: str) -> float:
    from tetrad.config import yaml_scalars
    from tetrad.config.types import Duration

    try:
        return float(Duration.parse(yaml_scalars.read(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
