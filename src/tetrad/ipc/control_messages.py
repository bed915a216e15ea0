"""What a running daemon says of itself: the types behind `tetrad status --json` and its schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(ge=-(2.0**36), le=2.0**36)]
"""What fits a calendar. A span is negative where somebody has set the clock."""


class Listener(Struct, frozen=True):
    """A place where clients are accepted; a Unix socket has no port.

    `tls`: whether they are encrypted; `proxy`: whether balancers bring them.
    """

    name: str
    address: str
    port: int | None
    service: str
    # A daemon of a version before these is to be told of, too.
    tls: bool = False
    proxy: bool = False

    @property
    def kind(self) -> str:
        """What is served, and how: `command, tls, proxy`."""
        how = {"tls": self.tls, "proxy": self.proxy}
        return ", ".join([self.service, *(name for name, is_so in how.items() if is_so)])


class Clients(Struct, frozen=True):
    """Clients now, the most there were at once, and the most that are let in."""

    now: int
    peak: int
    limit: int


class Handlers(Struct, frozen=True):
    """Handlers now, those of them that wait for a client, and those lost so far."""

    now: int
    idle: int
    lost: int


class Log(Struct, frozen=True):
    """The log, and how many events were written to it, or lost, since the start."""

    file: str | None
    level: str
    format: str
    logger: int | None
    written: int
    lost: int


class Session(Struct, frozen=True, omit_defaults=True):
    """A client that is in: `age` in seconds, `pid` its handler's.

    `proxy` is the balancer that brought it, if one did, `unique_id` that one's name for it.
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
    """The whole: `started` and `upgraded` in seconds since 1970, `uptime` in seconds.

    `upgraded` is when this version took over from another, None if none ever did.
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
    # A daemon of a version before these is to be told of, too.
    upgrades: int = 0
    upgraded: Seconds | None = None


class Reloaded(Struct, frozen=True):
    """What came of a reload: the settings that changed, or why all is as it was.

    `is_file_bad`: whether it failed because of the configuration.
    """

    changes: dict[str, str] | None = None
    errors: list[str] | None = None
    is_file_bad: bool = False

    def __post_init__(self) -> None:
        """Insist on one of the two."""
        if (self.changes is None) is (self.errors is None):
            raise ValueError("expected either changes or errors")


class Upgraded(Struct, frozen=True, rename={"old": "from"}):
    """What came of an upgrade: the versions and how many sessions went on; or why it failed.

    `is_file_bad`: whether it failed because of the configuration.
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
    """There is no daemon that could tell: it died, was stopped, or does not answer."""

    state: State
    reason: str | None = None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of what `tetrad status --json` prints."""
    kinds, definitions = msgspec.json.schema_components(
        (Status, Absent), ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": list(kinds),
        "$defs": definitions,
    }
