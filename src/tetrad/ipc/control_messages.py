"""Types of the answers on the control socket, and of `tetrad status --json` with its schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Seconds = Annotated[float, Meta(ge=-(2.0**36), le=2.0**36)]
"""Within the range of a calendar date. A span is negative after the clock was set back."""


class Listener(Struct, frozen=True):
    """An address at which clients are accepted; the port of a Unix socket is null.

    `tls`: whether connections use TLS; `proxy`: whether they begin with a PROXY header.
    """

    name: str
    address: str
    port: int | None
    service: str
    # With defaults, as an older daemon does not send them.
    tls: bool = False
    proxy: bool = False

    @property
    def kind(self) -> str:
        """The service and the protocols around it: `command, tls, proxy`."""
        layers = {"tls": self.tls, "proxy": self.proxy}
        return ", ".join([self.service, *(name for name, is_used in layers.items() if is_used)])


class Clients(Struct, frozen=True):
    """Clients now, the most at the same time so far, and the limit."""

    now: int
    peak: int
    limit: int


class Handlers(Struct, frozen=True):
    """Handler processes now, those without a client, and those that exited unexpectedly so far."""

    now: int
    idle: int
    lost: int


class Log(Struct, frozen=True):
    """The log, the pid of the logger, and the events written and lost since the start."""

    file: str | None
    level: str
    format: str
    logger: int | None
    written: int
    lost: int


class Session(Struct, frozen=True, omit_defaults=True):
    """A connected client; `age` is in seconds, `pid` is the handler's.

    `proxy` is the load balancer's address if there is one, `unique_id` the id from its header.
    """

    connection: str
    client: str
    service: str
    listener: str
    pid: int
    age: Seconds
    proxy: str | None = None
    unique_id: str | None = None


class Status(Struct, frozen=True):
    """The status of a daemon; `started` and `upgraded` are in seconds since 1970.

    `uptime` is in seconds. `rejected` counts sessions that TLS or the subject of the client's
    certificate has ended, by the reason of `client.disconnected`. `upgraded` is the time of the
    last upgrade, null if there was none.
    """

    state: Literal["running", "stopping"]
    pid: int
    version: str
    config: str | None
    started: Seconds
    uptime: Seconds
    listeners: list[Listener]
    clients: Clients
    handlers: Handlers
    accepted: int
    refused: dict[str, int]
    log: Log
    sessions: list[Session]
    # With defaults, as an older daemon does not send them.
    upgrades: int = 0
    upgraded: Seconds | None = None
    rejected: dict[str, int] = {}


class ListenerReport(Struct, frozen=True):
    """A listener, by its key such as `listen[0]` and its name, and what it does with an address.

    `proxy`: whether only load balancers may connect; `rule` is the one of `proxy.trusted` that
    matches, such as `proxy.trusted[0]`, and `network` its network.
    """

    key: str
    name: str
    family: Literal["inet", "inet6", "unix"]
    proxy: bool
    rule: str | None
    network: str | None


class AdmissionReport(Struct, frozen=True):
    """The daemon's answer to `source ADDRESS`; a limit that is None is not set.

    `rule` is the name of the access rule that decides, such as `access.deny[0]`, and None if none
    matches, and `network` its network. `rate_limit` is a count and its seconds, `wait` the seconds
    until the rate allows another session, `crash_wait` those until a source whose handlers have
    crashed is admitted again. `config` and `checksum` are of the file that the daemon
    has read. Older daemons do not send `rule` and all that follows it.
    """

    access: bool
    clients: int
    clients_limit: int
    from_source: int
    from_source_limit: int | None
    rate_limit: tuple[int, int] | None
    wait: float
    crash_wait: float = 0.0
    rule: str | UnsetType | None = UNSET
    network: str | None = None
    config: str | None = None
    checksum: int | UnsetType | None = UNSET
    listeners: list[ListenerReport] = []


class Reloaded(Struct, frozen=True):
    """The result of a reload: either the changed settings, or errors, and nothing changed.

    `is_file_bad`: whether the errors are in the configuration file.
    """

    changes: dict[str, str] | None = None
    errors: list[str] | None = None
    is_file_bad: bool = False

    def __post_init__(self) -> None:
        """Check that it is one of the two."""
        if (self.changes is None) is (self.errors is None):
            raise ValueError("expected either changes or errors")


class Upgraded(Struct, frozen=True, rename={"old": "from"}):
    """The result of an upgrade: versions, kept sessions and changed settings; or errors.

    `is_file_bad`: whether the errors are in the configuration file.
    """

    version: str = ""
    old: str = ""
    pid: int = 0
    sessions: int = 0
    changes: dict[str, str] = {}
    errors: list[str] | None = None
    is_file_bad: bool = False


State = Literal["dead", "stopped", "unknown"]


class Absent(Struct, frozen=True, omit_defaults=True):
    """No status: the daemon has died (`dead`), does not run, or does not respond (`unknown`)."""

    state: State
    reason: str | None = None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the output of `tetrad status --json`."""
    kinds, definitions = msgspec.json.schema_components(
        (Status, Absent), ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": list(kinds),
        "$defs": definitions,
    }
