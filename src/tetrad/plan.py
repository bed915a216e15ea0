"""The plan: the configuration as plain data, for the programs that import almost nothing.

The front makes it, `marshal` carries it, the master and its handlers read it. These types are for
the type checker: at run time a lean program never imports this module.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, TypedDict

import msgspec

from tetrad import __version__, executables, programs
from tetrad.activation import Activation
from tetrad.config import Call, Clock, Close, Fixed, Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tetrad.certificates import Found
    from tetrad.config import Command, Config, Listener
    from tetrad.configfile import Loaded


FIXED = (
    "daemon.pidfile",
    "daemon.control",
    "daemon.control_group",
    "daemon.user",
    "daemon.group",
    "daemon.working_directory",
    "daemon.umask",
)
"""The settings that a running daemon cannot change."""


class ProxyPlan(TypedDict):
    """Balancers before a listener: where they are, and the seconds that they have to say whom."""

    trusted: list[AccessRule]
    timeout: float


class TlsPlan(TypedDict):
    """What a listener is encrypted with, in PEM, and until when, in seconds since 1970.

    `file` is the certificate's; `client_ca` None: clients need no certificate; `subjects` are glob
    patterns, none: everybody is served who has a certificate.
    """

    file: str
    certificate: str
    key: str
    expires: float
    client_ca: str | None
    minimum_version: str
    subjects: list[str]


class ListenerPlan(TypedDict):
    """One listener, `place` in the list of them; `family` is inet, inet6 or unix (a path)."""

    place: int
    name: str
    family: str
    address: str
    port: int
    service: str
    backlog: int
    reply_terminator: str
    proxy: ProxyPlan | None
    tls: TlsPlan | None


class LogPlan(TypedDict):
    """The log. `file` None is standard error."""

    file: str | None
    level: str
    format: str


class LimitsPlan(TypedDict):
    """How many clients are let in; `rate_per_source` is a count and its seconds."""

    clients: int
    clients_per_source: int | None
    rate_per_source: tuple[int, int] | None


class SessionPlan(TypedDict):
    """The deadlines of a session, in seconds; None: there is none."""

    first_command_timeout: float | None
    idle_timeout: float | None
    max_duration: float | None
    send_timeout: float | None


class AccessRule(TypedDict):
    """One network: `bits` is 32 or 128, `network` its address as a number."""

    bits: int
    network: int
    prefix: int
    allow: bool


class CommandPlan(TypedDict):
    """What a command answers at once: `text` is strftime's format for a clock, else the answer."""

    kind: str
    text: str
    timezone: str


class JobPlan(TypedDict):
    """What a command does that takes its time.

    `target` is the path of a program, or a function as `package.module:function`, which has neither
    `arguments` (the program's own name is the first of them) nor `environment`. `timeout` is in
    seconds, `max_output` in bytes; without `on_error` a failure is not answered.
    """

    kind: str
    target: str
    arguments: list[str]
    environment: dict[str, str]
    timeout: float
    max_output: int
    on_error: str | None


class SupervisionPlan(TypedDict):
    """The service manager: where it listens, and after how many seconds of silence it acts.

    `is_known`: whether the master is the very process that it started.
    """

    notify: str | None
    watchdog: float | None
    is_known: bool


class Plan(TypedDict):
    """The whole.

    `file` is the configuration's, `settings` has every key with its value as text, `fixed` those
    that a running daemon cannot change; `logger`, `reloader` and `prober` are command lines.
    `supervision`, and whether the listeners are `inherited` from a service manager, hold from start
    to end.
    """

    version: str
    file: str | None
    listeners: list[ListenerPlan]
    fixed: list[str]
    settings: dict[str, str]
    pidfile: str
    control: str
    control_group: str | None
    stop_timeout: float
    log: LogPlan
    spare: int
    clients_each: int
    limits: LimitsPlan
    session: SessionPlan
    access: list[AccessRule]
    commands: dict[str, CommandPlan | JobPlan]
    logger: list[str]
    reloader: list[str]
    prober: list[str]
    supervision: SupervisionPlan
    inherited: bool


def make(
    loaded: Loaded,
    explicit: str | None,
    *,
    foreground: bool,
    activation: Activation = Activation(),  # noqa: B008 - immutable
    certificates: Sequence[Found | None] = (),
) -> Plan:
    """Make the plan of a configuration that has no problems; `explicit` is what -c named.

    `certificates` are what was found for each listener, if any needs them.

    In the foreground the log goes to the terminal, readable, unless the file says otherwise.
    """
    config = loaded.config
    manner = "run" if foreground else "start"
    session = config.session
    rate = config.limits.rate_per_source
    return Plan(
        version=__version__,
        file=loaded.file,
        listeners=[
            _listener(config, index, found and found.plan)
            for index, found in enumerate(certificates or [None] * len(config.listen))
        ],
        fixed=list(FIXED),
        settings=_settings(config, certificates),
        pidfile=str(config.daemon.pidfile),
        control=str(config.daemon.control),
        control_group=config.daemon.control_group and str(config.daemon.control_group),
        stop_timeout=float(config.daemon.stop_timeout),
        log=_log(loaded, foreground=foreground),
        spare=config.handlers.spare,
        clients_each=config.handlers.clients_each,
        limits=LimitsPlan(
            clients=config.limits.clients,
            clients_per_source=config.limits.clients_per_source,
            rate_per_source=None if rate is None else (rate.number, rate.seconds),
        ),
        session=SessionPlan(
            first_command_timeout=_seconds(session.first_command_timeout),
            idle_timeout=_seconds(session.idle_timeout),
            max_duration=_seconds(session.max_duration),
            send_timeout=_seconds(session.send_timeout),
        ),
        access=[
            *(_rule(network, allow=True) for network in config.access.allow),
            *(_rule(network, allow=False) for network in config.access.deny),
        ],
        commands=_commands(config),
        logger=programs.command("logger"),
        reloader=programs.command("reloader", manner, explicit or ""),
        prober=programs.command("probe", manner, explicit or ""),
        supervision=SupervisionPlan(
            notify=activation.notify, watchdog=activation.watchdog, is_known=foreground
        ),
        inherited=bool(activation.sockets),
    )


def _listener(config: Config, index: int, tls: TlsPlan | None) -> ListenerPlan:
    listener = config.listen[index]
    path = listener.address.path
    family = "unix" if path is not None else "inet6" if ":" in listener.address else "inet"
    return ListenerPlan(
        place=index,
        name=listener.name,
        family=family,
        address=str(listener.address) if path is None else path,
        port=listener.port or 0,
        service=listener.service,
        backlog=listener.backlog,
        reply_terminator=str(listener.reply_terminator),
        proxy=_proxy(listener),
        tls=tls,
    )


def _proxy(listener: Listener) -> ProxyPlan | None:
    if listener.proxy is None:
        return None
    trusted = [_rule(network, allow=True) for network in listener.proxy.trusted]
    return ProxyPlan(trusted=trusted, timeout=float(listener.proxy.timeout))


def _log(loaded: Loaded, *, foreground: bool) -> LogPlan:
    log = loaded.config.log
    file, style = log.file, log.format
    if foreground and "log.file" not in loaded.given:
        file = None
    if file is None and "log.format" not in loaded.given:
        style = "console"
    return LogPlan(file=None if file is None else str(file), level=log.level, format=style)


def _settings(config: Config, certificates: Sequence[Found | None]) -> dict[str, str]:
    """Return every key with its value as text, for saying what a reload changed."""
    settings = dict(_leaves(msgspec.to_builtins(config, enc_hook=str, str_keys=True), ""))
    for found in certificates:
        settings |= found.settings if found is not None else {}
    return settings


def _leaves(tree: object, path: str) -> Iterator[tuple[str, str]]:
    """Go through what is neither a mapping nor a list of mappings, as `listen[0].port`."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{path}[{index}]")
    else:
        yield path, _text(tree)


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode().strip('"')


def _rule(text: str, *, allow: bool) -> AccessRule:
    network = ipaddress.ip_network(text)
    return AccessRule(
        bits=network.max_prefixlen,
        network=int(network.network_address),
        prefix=network.prefixlen,
        allow=allow,
    )


def _commands(config: Config) -> dict[str, CommandPlan | JobPlan]:
    """Return a plan for each command that was not taken away."""
    made = {str(name): command for name, command in config.commands.items() if command is not None}
    return {name: _command(command) for name, command in made.items()}


def _command(command: Command) -> CommandPlan | JobPlan:
    match command:
        case Clock():
            zone = str(command.timezone)
            return CommandPlan(kind="clock", text=str(command.clock), timezone=zone)
        case Close():
            return CommandPlan(kind="close", text=command.close, timezone="")
        case Fixed():
            return CommandPlan(kind="text", text=command.text, timezone="")
        case Run():
            given = {str(name): str(value) for name, value in command.env.items()}
            environment = {"PATH": executables.PATH, "LANG": executables.LANG} | given
            return _job("run", command, command.program, list(map(str, command.run)), environment)
        case Call():
            return _job("call", command, str(command.call), [], {})


def _job(
    kind: str, command: Run | Call, target: str, arguments: list[str], environment: dict[str, str]
) -> JobPlan:
    return JobPlan(
        kind=kind,
        target=target,
        arguments=arguments,
        environment=environment,
        timeout=float(command.timeout),
        max_output=int(command.max_output),
        on_error=command.on_error,
    )


def _seconds(duration: float | None) -> float | None:
    return None if duration is None else float(duration)
