"""The parser of the command line, from which the manual and the completions are made, too."""

from __future__ import annotations

import argparse
import ipaddress
from typing import TYPE_CHECKING

from tetrad import __version__
from tetrad.cli import conversation, installation, start_stop
from tetrad.cli import logs as inspection
from tetrad.config.types import Duration
from tetrad.ipc.log_protocol import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="tetrad",
        description="A daemon that forks a process per TCP client and answers four-byte commands.",
        parents=[_common(default=None)],
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        # What stands before the command must not be undone by a default behind it.
        parents = [_common(default=argparse.SUPPRESS)]
        sub = commands.add_parser(name, help=text, description=text, parents=parents)
        sub.set_defaults(command=command)
        return sub

    add("run", start_stop.run, "serve in the foreground, with the log on the terminal")
    add("start", start_stop.start, "start the daemon, and return once it accepts clients")
    add("stop", start_stop.stop, "stop the daemon, and return once it is gone")
    add("restart", start_stop.restart, "stop the daemon and start it again")
    add("reload", start_stop.reload, "have the daemon apply its configuration file again")
    add("upgrade", start_stop.upgrade, "have the daemon become the version that is installed now")
    _add_status(add("status", inspection.status, "say whether the daemon runs, and how it is"))
    _add_logs(add("logs", inspection.logs, "show the log, in lines for people"))
    _add_explain(add("explain", inspection.explain, "tell whether a client would be let in"))
    _add_check(add("check", inspection.check, "validate the configuration"))
    _add_client(add("client", conversation.client, "talk to a tetrad, by hand or in words"))
    _add_install(add("install", installation.install, "put the files of the service in place"))
    _add_place(add("uninstall", installation.uninstall, "take the files of the service away"))
    return top


def _common(*, default: str | None) -> argparse.ArgumentParser:
    """Return what every level understands."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-c",
        "--config",
        type=_file,
        metavar="FILE",
        default=default,
        help="the configuration (else $TETRAD_CONFIG, /etc/tetrad/tetrad.yaml, built-in defaults)",
    )
    common.add_argument("--version", action="version", version=f"tetrad {__version__}")
    return common


def _add_status(status: argparse.ArgumentParser) -> None:
    status.add_argument(
        "--format",
        choices=("text", "json", "openmetrics"),
        default="text",
        help="for people, for programs, for Prometheus' textfile collector",
    )
    status.add_argument(
        "--json", action="store_const", const="json", dest="format", help="as --format json"
    )
    status.add_argument("--clients", action="store_true", help="list the sessions")
    status.add_argument("--schema", action="store_true", help="print the JSON Schema of --json")


def _add_logs(logs: argparse.ArgumentParser) -> None:
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines are written")
    logs.add_argument("-n", "--lines", type=_count, metavar="N", help="the last N lines")
    logs.add_argument("--client", type=_network, metavar="CIDR", help="of clients from there")
    logs.add_argument("--connection", metavar="ID", help="of one session")
    logs.add_argument("--event", metavar="GLOB", help="events such as client.*")
    logs.add_argument("--level", choices=tuple(LEVELS), help="of this level or above")
    logs.add_argument("--since", type=_span, metavar="SPAN", help="not older than 10m, 2h, 1d")


def _add_explain(explain: argparse.ArgumentParser) -> None:
    explain.add_argument("address", type=_address, metavar="ADDRESS", help="IPv4 or IPv6")


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        "--dump", action="store_true", help="print the effective configuration as YAML"
    )
    check.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of the file, for editors"
    )


def _add_client(client: argparse.ArgumentParser) -> None:
    client.add_argument(
        "--host", default="127.0.0.1", help="address, name or unix:PATH (default: %(default)s)"
    )
    client.add_argument("--port", type=_port, default=65000, help="TCP port (default: %(default)s)")
    client.add_argument(
        "--service",
        choices=("command", "echo"),
        default="command",
        help="what is served there (default: %(default)s)",
    )
    client.add_argument("--tls", action="store_true", help="encrypt, and insist on who it is")
    client.add_argument(
        "--ca", metavar="FILE", help="who may vouch for it (default: whom this system trusts)"
    )
    client.add_argument("--cert", metavar="FILE", help="a certificate to show, with its chain")
    client.add_argument("--key", metavar="FILE", help="its key (default: it is in --cert, too)")
    client.add_argument("--insecure", action="store_true", help="encrypt with whoever it is")
    client.add_argument(
        "--timeout",
        type=_span,
        metavar="SPAN",
        default="2s",
        help="how long an answer may take, such as 500ms or 1m (default: %(default)s)",
    )
    client.add_argument("words", nargs="*", metavar="WORD", help="what to send")


def _add_install(install: argparse.ArgumentParser) -> None:
    _add_place(install)
    install.add_argument(
        "--socket",
        action=argparse.BooleanOptionalAction,
        help="have clients come in through tetrad.socket alone (default: as it is)",
    )


def _add_place(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--root", metavar="DIR", default="/", help="what stands before every path (default: /)"
    )
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return int(text)


def _file(text: str) -> str:
    if not text:  # as of a variable that is not set: the defaults would not be what was meant
        raise argparse.ArgumentTypeError("expected the name of a file")
    return text


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("expected a number of lines")
    return int(text)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError("expected a network as 192.0.2.0/24") from None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise argparse.ArgumentTypeError("expected an IPv4 or IPv6 address") from None


def _span(text: str) -> float:
    try:
        return float(Duration.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
