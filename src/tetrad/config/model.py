"""The configuration: every key, its type, its default and what it means, in one line each.

The file's reader, the manual page, the JSON Schema and `--dump` are all made from these types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, field
from msgspec.structs import force_setattr

from tetrad.config import paths
from tetrad.config.answers import Terminator
from tetrad.config.command_model import BUILT_IN_COMMANDS, Command
from tetrad.config.diagnostics import did_you_mean
from tetrad.config.section import ConstraintViolation, Section, Text
from tetrad.config.types import (
    Address,
    CommandName,
    Duration,
    Group,
    Mode,
    Network,
    Path,
    Rate,
    SocketPath,
    TlsVersion,
    User,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PORT = 65000

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
CountOrNone = Annotated[int, Meta(ge=0, le=10_000)]
Backlog = Annotated[int, Meta(ge=1, le=65535)]


class Proxy(Section, frozen=True):
    """A balancer before a listener, which says at the head of each connection whom it brings."""

    trusted: Annotated[
        list[Network], Meta(description="where balancers are; nobody else may connect")
    ] = []
    timeout: Annotated[Duration, Meta(description="until the header has come")] = Duration(5)


class Tls(Section, frozen=True):
    """What a listener is encrypted with."""

    certificate: Annotated[
        Path, Meta(description="in PEM: the listener's, then those that vouch for it")
    ]
    key: Annotated[
        Path | None, Meta(description="in PEM; null: it is in the certificate's file")
    ] = None
    client_ca: Annotated[
        Path | None,
        Meta(description="in PEM: who vouches for clients, which then need a certificate"),
    ] = None
    minimum_version: Annotated[
        TlsVersion, Meta(description="older versions of TLS are refused")
    ] = TlsVersion("1.2")
    subjects: Annotated[
        list[Text],
        Meta(description='who is served, as "CN=monitor,*"; empty: all whom client_ca vouches for'),
    ] = []

    def misfits(self) -> Iterable[ConstraintViolation]:
        """Return what would be checked against nothing."""
        if self.subjects and self.client_ca is None:
            yield ConstraintViolation("subjects", "without client_ca nobody shows a certificate")


class Listener(Section, frozen=True):
    """A place where clients are accepted."""

    address: Annotated[
        Address, Meta(description='IPv4, IPv6 ("::" is dual-stack), or unix:/path/to.sock')
    ] = Address("127.0.0.1")
    port: Annotated[Port | None, Meta(description="0: any free port; none for a Unix socket")] = (
        None
    )
    service: Annotated[
        Literal["command", "echo"], Meta(description="what clients get: command or echo")
    ] = "command"
    backlog: Annotated[Backlog, Meta(description="connections waiting to be accepted")] = 1024
    reply_terminator: Annotated[
        Terminator, Meta(description='what ends every answer to a command, e.g. "\\r\\n"')
    ] = Terminator("")
    proxy: Annotated[
        Proxy | None, Meta(description="the PROXY protocol, which is then mandatory; null: off")
    ] = None
    tls: Annotated[Tls | None, Meta(description="encryption; null: none")] = None

    def __post_init__(self) -> None:
        """Give TCP its default port."""
        super().__post_init__()
        if self.address.path is None and self.port is None:
            force_setattr(self, "port", DEFAULT_PORT)

    def misfits(self) -> Iterable[ConstraintViolation]:
        """Return what fits TCP only, or Unix sockets; echoes have no end of their own."""
        is_tcp = self.address.path is None
        if self.reply_terminator and self.service == "echo":
            message = "the service echo sends back what it gets, and nothing else; take this out"
            yield ConstraintViolation("reply_terminator", message)
        if self.port is not None and not is_tcp:
            yield ConstraintViolation("port", "a Unix socket has no port; take this line out")
        if self.proxy is not None and not self.proxy.trusted and is_tcp:
            message = "name the balancers that are trusted, as {trusted: [192.0.2.10]}"
            yield ConstraintViolation("proxy", message)
        if self.proxy is not None and self.proxy.trusted and not is_tcp:
            message = "at a Unix socket its permissions say who is trusted; write {} here"
            yield ConstraintViolation("proxy", message)

    @property
    def name(self) -> str:
        """`127.0.0.1:65000`, `[::1]:65000` or `unix:/path`."""
        if self.address.path is not None:
            return str(self.address)
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


class Daemon(Section, frozen=True):
    """The process itself."""

    pidfile: Annotated[Path, Meta(description="held by a lock while the daemon runs")] = field(
        default_factory=lambda: Path(paths.pidfile())
    )
    control: Annotated[SocketPath, Meta(description="the socket of status and reload")] = field(
        default_factory=lambda: SocketPath(paths.control())
    )
    control_group: Annotated[
        Group | None, Meta(description="a group that may ask for the status, too")
    ] = None
    user: Annotated[User | None, Meta(description="drop to this user once bound")] = None
    group: Annotated[Group | None, Meta(description="and group; the user's own if not given")] = (
        None
    )
    working_directory: Annotated[Path, Meta(description="where the daemon stays")] = Path("/")
    umask: Annotated[Mode, Meta(description="what its files do not allow, octal")] = Mode(0o027)
    stop_timeout: Annotated[
        Duration, Meta(description="what sessions get to finish in, before they are killed")
    ] = Duration(10)


class Log(Section, frozen=True):
    """The log."""

    file: Annotated[Path | None, Meta(description="null: standard error")] = field(
        default_factory=lambda: Path(paths.log())
    )
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="the least that is written")
    ] = "info"
    format: Annotated[
        Literal["json", "logfmt", "console"], Meta(description="json, logfmt or console")
    ] = "json"


class Handlers(Section, frozen=True):
    """The processes that serve clients."""

    spare: Annotated[
        CountOrNone, Meta(description="forked ahead of their client, warm and waiting")
    ] = 0
    clients_each: Annotated[
        Count, Meta(description="clients one handler serves, one after another, before it exits")
    ] = 1


class Limits(Section, frozen=True):
    """How many clients are let in."""

    clients: Annotated[Count, Meta(description="at once")] = 1000
    clients_per_source: Annotated[
        Count | None, Meta(description="at once from one IPv4 address or IPv6 /64")
    ] = None
    rate_per_source: Annotated[
        Rate | None, Meta(description="new sessions, e.g. 20/s or 300/m")
    ] = None


class Session(Section, frozen=True):
    """The deadlines of one session."""

    first_command_timeout: Annotated[
        Duration | None, Meta(description="a client that has said nothing yet")
    ] = Duration(30)
    idle_timeout: Annotated[Duration | None, Meta(description="between commands")] = Duration(300)
    max_duration: Annotated[Duration | None, Meta(description="from connect to close")] = None
    send_timeout: Annotated[Duration | None, Meta(description="a client that does not read")] = (
        Duration(10)
    )


class Access(Section, frozen=True):
    """Who is let in: the most specific match of the two lists wins; on a tie, deny."""

    allow: Annotated[list[Network], Meta(description="networks; empty: everyone")] = []
    deny: Annotated[list[Network], Meta(description="networks that are kept out")] = []


class Config(Section, frozen=True):
    """The whole configuration."""

    listen: list[Listener] = field(default_factory=lambda: [Listener()])
    daemon: Daemon = field(default_factory=Daemon)
    log: Log = field(default_factory=Log)
    handlers: Handlers = Handlers()
    limits: Limits = Limits()
    session: Session = Session()
    access: Access = Access()
    commands: dict[CommandName, Command | None] = {}

    def __post_init__(self) -> None:
        """Add the built-in commands to the file's own."""
        super().__post_init__()
        force_setattr(self, "commands", BUILT_IN_COMMANDS | self.commands)

    def misfits(self) -> Iterable[ConstraintViolation]:
        """Return what one part of the configuration does not leave to another."""
        if not self.listen:
            yield ConstraintViolation("listen", "at least one listener is needed")
        names = [listener.name for listener in self.listen]
        for index, (name, listener) in enumerate(zip(names, self.listen, strict=True)):
            first = names.index(name)
            if first != index and listener.port != 0:
                yield ConstraintViolation(
                    f"listen[{index}]", f"{name} is that of listen[{first}] already"
                )
        yield from self._files_in_the_way()
        for name, command in self.commands.items():
            if command is None and name not in BUILT_IN_COMMANDS:
                hint = did_you_mean(name, BUILT_IN_COMMANDS)
                yield ConstraintViolation(
                    f"commands.{name}", f"there is no such command to take out{hint}"
                )

    def _files_in_the_way(self) -> Iterable[ConstraintViolation]:
        """Return what would have a log written into the pidfile, and the like."""
        files: list[tuple[str, str | None, str]] = [
            ("daemon.pidfile", self.daemon.pidfile, paths.pidfile()),
            ("daemon.control", self.daemon.control, paths.control()),
            ("log.file", self.log.file, paths.log()),
        ]
        taken = {one.address.path: "listen" for one in self.listen}
        # What nobody has said comes first: the place that is told is one that somebody has written.
        for key, path, _ in sorted(files, key=lambda file: file[1] != file[2]):
            if path is not None and path in taken:
                yield ConstraintViolation(key, f"{path} is that of {taken[path]} already")
            taken[path] = key
