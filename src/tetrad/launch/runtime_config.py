"""Builds the runtime configuration, plain data for lean programs, from the validated model."""

from __future__ import annotations

import ipaddress
import math
import os
from typing import TYPE_CHECKING

import msgspec

from tetrad import __version__
from tetrad.config import paths, programs
from tetrad.config.command_model import Call, Clock, Close, FixedText, Run
from tetrad.ipc import control_messages
from tetrad.ipc.runtime_config import (
    AccessRule,
    CommandConfig,
    JobConfig,
    LimitsConfig,
    ListenerConfig,
    LogConfig,
    ProxyConfig,
    RuntimeConfig,
    ServiceManagerConfig,
    SessionConfig,
)
from tetrad.launch import privileges
from tetrad.launch.code_digest import code_digest
from tetrad.launch.socket_activation import SocketActivation
from tetrad.system import exec_commands

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tetrad.config.certificates import ListenerTls
    from tetrad.config.command_model import Command
    from tetrad.config.model import Access, Config, Listener
    from tetrad.config.result import ConfigResult
    from tetrad.config.types import Rate
    from tetrad.ipc.runtime_config import TlsConfig

LOCALHOST = ("127.0.0.1", "::1")
"""Clients on this host: also those of a local load balancer or tunnel, for its own clients."""

RESTART_ONLY = (
    "daemon.pidfile",
    "daemon.control",
    "daemon.control_group",
    "daemon.user",
    "daemon.group",
    "daemon.working_directory",
    "daemon.umask",
    "daemon.system_call_filter",
)
"""The settings that only a restart can change."""


def build(
    loaded: ConfigResult,
    config_path: str | None,
    *,
    foreground: bool,
    activation: SocketActivation = SocketActivation(),  # noqa: B008 - immutable
    certificates: Sequence[ListenerTls | None] = (),
) -> RuntimeConfig:
    """Return the runtime configuration of a configuration without problems.

    `config_path` is the file that -c or $TETRAD_CONFIG names, if one does. `certificates` has an
    item for each listener, or none if no listener has TLS. In the foreground the log goes to
    standard error, in the format `console`, unless the file sets them.
    """
    config = loaded.config
    run_mode = "run" if foreground else "start"
    # A daemon that is no longer root must not take the defaults of its user.
    start = (run_mode, config_path or "", paths.runtime_folder(), paths.log_folder())
    session = config.session
    return RuntimeConfig(
        version=__version__,
        code=code_digest(),
        file=shown_path(loaded.file),
        checksum=loaded.checksum,
        listeners=[
            _listener(config, index, found and found.config)
            for index, found in enumerate(certificates or [None] * len(config.listen))
        ],
        restart_only=list(RESTART_ONLY),
        settings=_settings(config, certificates),
        pidfile=str(config.daemon.pidfile),
        control=str(config.daemon.control),
        control_group=privileges.group_id(config.daemon.control_group),
        stop_timeout=float(config.daemon.stop_timeout),
        log=_log(loaded, foreground=foreground),
        spare=config.handlers.spare,
        clients_each=config.handlers.clients_each,
        limits=_limits(config),
        session=SessionConfig(
            first_command_timeout=_seconds(session.first_command_timeout),
            idle_timeout=_seconds(session.idle_timeout),
            max_duration=_seconds(session.max_duration),
            send_timeout=_seconds(session.send_timeout),
            log_rate=_rate(config.log.session_rate),
        ),
        access=access_rules(config.access),
        commands={
            str(name): _command(command)
            for name, command in config.commands.items()
            if command is not None
        },
        logger=exec_commands.command("logger.process"),
        config_reader=exec_commands.command("helpers.config_reader", *start),
        upgrade_trial=exec_commands.command("helpers.upgrade_trial", *start),
        unconfined={},
        service_manager=ServiceManagerConfig(
            notify=activation.notify, watchdog=activation.watchdog, knows_main_pid=foreground
        ),
        inherited=bool(activation.sockets),
    )


def shown_path(file: str | None) -> str | None:
    """Return a path without surrogates, as the status and the title of a daemon show it."""
    return file and os.fsencode(file).decode("utf-8", "backslashreplace")


def access_rules(access: Access) -> list[AccessRule]:
    """Return the rules of both access lists; their names are keys such as `access.deny[0]`."""
    allow = _rules("access.allow", access.allow, allow=True)
    return allow + _rules("access.deny", access.deny, allow=False)


def _listener(config: Config, index: int, tls: TlsConfig | None) -> ListenerConfig:
    listener = config.listen[index]
    path = listener.address.path
    family = "unix" if path is not None else "inet6" if ":" in listener.address else "inet"
    return ListenerConfig(
        index=index,
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


def _proxy(listener: Listener) -> ProxyConfig | None:
    if listener.proxy is None:
        return None
    trusted = _rules("proxy.trusted", listener.proxy.trusted, allow=True)
    return ProxyConfig(trusted=trusted, timeout=float(listener.proxy.timeout))


def _limits(config: Config) -> LimitsConfig:
    """Return the limits. `auto` does not count this host and load balancers as a source."""
    limits = config.limits
    per_source, exempt = limits.clients_per_source, []
    if per_source == "auto":
        per_source = max(1, limits.clients // 2)
        proxies = [listener.proxy for listener in config.listen if listener.proxy is not None]
        balancers = [network for proxy in proxies for network in proxy.trusted]
        exempt = _rules("exempt", [*LOCALHOST, *balancers], allow=True)
    return LimitsConfig(
        clients=limits.clients,
        clients_per_source=per_source,
        exempt=exempt,
        rate_per_source=_rate(limits.rate_per_source),
    )


def _log(loaded: ConfigResult, *, foreground: bool) -> LogConfig:
    log = loaded.config.log
    file, style = log.file, log.format
    if foreground and "log.file" not in loaded.key_lines:
        file = None
    if file is None and "log.format" not in loaded.key_lines:
        style = "console"
    return LogConfig(file=None if file is None else str(file), level=log.level, format=style)


def _settings(config: Config, certificates: Sequence[ListenerTls | None]) -> dict[str, str]:
    """Return every key with its value as text: a reload compares them and reports changes.

    The key of a listener, a command or a mapping in them has a summary of it.
    """
    settings = dict(_leaves(msgspec.to_builtins(config, enc_hook=str, str_keys=True), ""))
    for index, one in enumerate(config.listen):
        layers = {"tls": one.tls is not None, "proxy": one.proxy is not None}
        shown = control_messages.Listener(one.name, one.address, one.port, one.service, **layers)
        settings[f"listen[{index}]"] = f"{one.name} ({shown.kind})"
    for found in certificates:
        settings |= found.settings if found is not None else {}
    return settings


def _leaves(tree: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield each leaf with its key, such as `listen[0].port`; a list of scalars is one leaf.

    The summary of a mapping in a section is its first key and value; `env` has no summary.
    """
    if isinstance(tree, dict):
        if "." in path and not path.endswith(".env"):
            key, value = next(iter(tree.items()))
            yield path, f"{key} {_text(value)}"
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(tree, list) and any(isinstance(value, dict) for value in tree):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{path}[{index}]")
    else:
        yield path, _text(tree)


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode().strip('"')


def _rules(key: str, networks: Iterable[str], *, allow: bool) -> list[AccessRule]:
    """Return the rules of a list of networks, with the names `key[0]`, `key[1]` and so on."""
    rules = []
    for index, text in enumerate(networks):
        network = ipaddress.ip_network(text)
        rules.append(
            AccessRule(
                name=f"{key}[{index}]",
                bits=network.max_prefixlen,
                network=int(network.network_address),
                prefix=network.prefixlen,
                allow=allow,
            )
        )
    return rules


def _command(command: Command) -> CommandConfig | JobConfig:
    match command:
        case Clock():
            return CommandConfig(kind="clock", text=str(command.clock), timezone=command.zone)
        case Close():
            return CommandConfig(kind="close", text=command.close, timezone="")
        case FixedText():
            return CommandConfig(kind="text", text=command.text, timezone="")
        case Run():
            given = {str(name): str(value) for name, value in command.env.items()}
            environment = {"PATH": programs.PATH, "LANG": programs.LANG} | given
            return _job("run", command, command.program, list(map(str, command.run)), environment)
        case Call():
            return _job("call", command, str(command.call), [], {})


def _job(
    kind: str, command: Run | Call, target: str, arguments: list[str], environment: dict[str, str]
) -> JobConfig:
    return JobConfig(
        kind=kind,
        target=target,
        arguments=arguments,
        environment=environment,
        timeout=float(command.timeout),
        max_output=int(command.max_output),
        on_error=command.on_error,
        max_running=command.max_running,
        memory=_bytes(command.memory),
        cpu=None if command.cpu is None else math.ceil(command.cpu),
        file_size=_bytes(command.file_size),
    )


def _rate(rate: Rate | None) -> tuple[int, int] | None:
    return None if rate is None else (rate.number, rate.seconds)


def _bytes(size: int | None) -> int | None:
    return None if size is None else int(size)


def _seconds(duration: float | None) -> float | None:
    return None if duration is None else float(duration)
