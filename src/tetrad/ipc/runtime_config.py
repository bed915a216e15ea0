"""The runtime configuration: the configuration as plain data, for the master and its handlers.

`tetrad.launch.runtime_config` makes it, and `marshal` carries it between processes. These types are
for the type checker: the master and its handlers never import this module at run time.
"""

from __future__ import annotations

from typing import TypedDict


class ProxyConfig(TypedDict):
    """The trusted proxies of a listener, and the seconds within which the PROXY header must end."""

    trusted: list[AccessRule]
    timeout: float


class TlsConfig(TypedDict):
    """The TLS settings of a listener; certificates and key are PEM texts.

    The master empties `certificate` and `key` when it has made the TLS context.

    `file` is the path of the certificate, `expires` its end in seconds since 1970. With `client_ca`
    None, clients need no certificate. `subjects` are glob patterns; an empty list accepts every
    valid client certificate.
    """

    file: str
    certificate: str
    key: str
    expires: float
    client_ca: str | None
    client_crl: str | None
    minimum_version: str
    subjects: list[str]


class ListenerConfig(TypedDict):
    """A listener, at `index` in the list; `family` is inet, inet6 or unix (`address` is a path)."""

    index: int
    name: str
    family: str
    address: str
    port: int
    service: str
    backlog: int
    reply_terminator: str
    proxy: ProxyConfig | None
    tls: TlsConfig | None


class LogConfig(TypedDict):
    """The log; `file` None is standard error."""

    file: str | None
    level: str
    format: str


class LimitsConfig(TypedDict):
    """The limits of clients; `rate_per_source` is a count and a period in seconds.

    `clients_per_source` does not apply to the addresses of `exempt`.
    """

    clients: int
    clients_per_source: int | None
    exempt: list[AccessRule]
    rate_per_source: tuple[int, int] | None


class SessionConfig(TypedDict):
    """The timeouts of a session in seconds; None is no timeout.

    `log_rate` is how many lines of commands a session may log: a count and a period in seconds;
    None: all.
    """

    first_command_timeout: float | None
    idle_timeout: float | None
    max_duration: float | None
    send_timeout: float | None
    log_rate: tuple[int, int] | None


class AccessRule(TypedDict):
    """A rule for one network: `bits` is 32 or 128, `network` the address as a number.

    `name` is the key of the rule in the configuration, such as `access.deny[0]`.
    """

    name: str
    bits: int
    network: int
    prefix: int
    allow: bool


class CommandConfig(TypedDict):
    """A command that is answered at once; `text` is the answer, or a clock's strftime(3) format."""

    kind: str
    text: str
    timezone: str  # "local", "UTC" or a value of TZ


class JobConfig(TypedDict):
    """A command that runs a program or calls a function.

    `target` is the path of the program, or the function as `package.module:function`. `arguments`
    (the first is the program's name) and `environment` are empty for a function. `timeout` is in
    seconds, `max_output` in bytes. With `on_error` None a failure is not answered. At most
    `max_running` run at once. Each process has the resource limits `memory` and `file_size` in
    bytes, and `cpu` in seconds; None is no limit.
    """

    kind: str
    target: str
    arguments: list[str]
    environment: dict[str, str]
    timeout: float
    max_output: int
    on_error: str | None
    max_running: int | None
    memory: int | None
    cpu: int | None
    file_size: int | None


class ServiceManagerConfig(TypedDict):
    """The values of NOTIFY_SOCKET, and of WATCHDOG_USEC in seconds.

    `knows_main_pid`: whether the service manager knows that the master is the main process.
    """

    notify: str | None
    watchdog: float | None
    knows_main_pid: bool


class RuntimeConfig(TypedDict):
    """The whole configuration.

    `code` is the digest of the code that made it (`tetrad.launch.code_digest`), `file` the path of
    the configuration file, `checksum` that of its contents. `settings` has the text of every key's
    value; `restart_only` are the keys that a reload cannot change. `logger`, `config_reader` and
    `upgrade_trial` are command lines. `unconfined` has the protections that the kernel does not
    offer, and why. Two items never change while the daemon runs: `service_manager`, and whether the
    listeners are `inherited` from it.
    """

    version: str
    code: str
    file: str | None
    checksum: int | None
    listeners: list[ListenerConfig]
    restart_only: list[str]
    settings: dict[str, str]
    pidfile: str
    control: str
    control_group: int | None
    stop_timeout: float
    log: LogConfig
    spare: int
    clients_each: int
    limits: LimitsConfig
    session: SessionConfig
    access: list[AccessRule]
    commands: dict[str, CommandConfig | JobConfig]
    logger: list[str]
    config_reader: list[str]
    upgrade_trial: list[str]
    unconfined: dict[str, str]
    service_manager: ServiceManagerConfig
    inherited: bool
