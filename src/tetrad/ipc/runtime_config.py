"""The plan: the configuration as plain data, for the programs that import almost nothing.

`tetrad.launch.runtime_config` makes it, `marshal` carries it, the master and its handlers read it.
These types
are for the type checker: at run time a lean program never imports this module.
"""

from __future__ import annotations

from typing import TypedDict


class ProxyConfig(TypedDict):
    """Balancers before a listener: where they are, and the seconds that they have to say whom."""

    trusted: list[AccessRule]
    timeout: float


class TlsConfig(TypedDict):
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


class ListenerConfig(TypedDict):
    """One listener, `index` in the list of them; `family` is inet, inet6 or unix (a path)."""

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
    """The log. `file` None is standard error."""

    file: str | None
    level: str
    format: str


class LimitsConfig(TypedDict):
    """How many clients are let in; `rate_per_source` is a count and its seconds."""

    clients: int
    clients_per_source: int | None
    rate_per_source: tuple[int, int] | None


class SessionConfig(TypedDict):
    """The deadlines of a session, in seconds; None: there is none."""

    first_command_timeout: float | None
    idle_timeout: float | None
    max_duration: float | None
    send_timeout: float | None


class AccessRule(TypedDict):
    """One network: `bits` is 32 or 128, `network` its address as a number, `name` its key.

    The key is where the rule stands in the configuration, such as `access.deny[0]`.
    """

    name: str
    bits: int
    network: int
    prefix: int
    allow: bool


class CommandConfig(TypedDict):
    """What a command answers at once: `text` is strftime's format for a clock, else the answer."""

    kind: str
    text: str
    timezone: str


class JobConfig(TypedDict):
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


class ServiceManagerConfig(TypedDict):
    """The service manager: where it listens, and after how many seconds of silence it acts.

    `is_known`: whether the master is the very process that it started.
    """

    notify: str | None
    watchdog: float | None
    is_known: bool


class RuntimeConfig(TypedDict):
    """The whole.

    `file` is the configuration's, `settings` has every key with its value as text, `fixed` those
    that a running daemon cannot change; `logger`, `reloader` and `prober` are command lines.
    `supervision`, and whether the listeners are `inherited` from a service manager, hold from start
    to end.
    """

    version: str
    file: str | None
    listeners: list[ListenerConfig]
    fixed: list[str]
    settings: dict[str, str]
    pidfile: str
    control: str
    control_group: str | None
    stop_timeout: float
    log: LogConfig
    spare: int
    clients_each: int
    limits: LimitsConfig
    session: SessionConfig
    access: list[AccessRule]
    commands: dict[str, CommandConfig | JobConfig]
    logger: list[str]
    reloader: list[str]
    prober: list[str]
    service_manager: ServiceManagerConfig
    inherited: bool
