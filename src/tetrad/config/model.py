"""The configuration: each key with its type, its default and a description in one line.

The file's reader, the JSON Schema and `tetrad check --dump` are made from these types.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, field
from msgspec.structs import force_setattr

from tetrad.config import paths
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
    Terminator,
    TlsVersion,
    User,
)
from tetrad.system import users
from tetrad.system.addresses import exclude_each_other

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PORT = 65000

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
SpareCount = Annotated[int, Meta(ge=0, le=10_000)]
Backlog = Annotated[int, Meta(ge=1, le=65535)]


class Proxy(Section, frozen=True):
    """The PROXY protocol: a load balancer sends each client's address before its data."""

    trusted: Annotated[
        list[Network], Meta(description="addresses of the load balancers; others are refused")
    ] = []
    timeout: Annotated[
        Duration, Meta(description="time in which the whole PROXY header must arrive")
    ] = Duration(5)


class Tls(Section, frozen=True):
    """The TLS settings of a listener. All files are in PEM format."""

    certificate: Annotated[
        Path, Meta(description="the server certificate, followed by the intermediate certificates")
    ]
    key: Annotated[
        Path | None, Meta(description="the private key; null: it is in the certificate file")
    ] = None
    client_ca: Annotated[
        Path | None,
        Meta(description="CA certificates that every client certificate is verified against"),
    ] = None
    client_crl: Annotated[
        Path | None,
        Meta(description="revocation lists (CRLs), one of each CA of the client certificates"),
    ] = None
    minimum_version: Annotated[TlsVersion, Meta(description="the oldest version accepted")] = (
        TlsVersion("1.2")
    )
    subjects: Annotated[
        list[Text],
        Meta(description='subjects of the clients to accept, such as "CN=monitor,*"; empty: all'),
    ] = []

    def violations(self) -> Iterable[ConstraintViolation]:
        """Return a violation for each key that needs certificates of clients if they send none."""
        for key, value in (("subjects", self.subjects), ("client_crl", self.client_crl)):
            if value and self.client_ca is None:
                message = "needs client_ca: without it, clients send no certificate"
                yield ConstraintViolation(key, message, "client_ca")


class Listener(Section, frozen=True):
    """An address at which clients connect, and the service that they get."""

    address: Annotated[
        Address, Meta(description='IPv4, IPv6 ("::" is dual-stack), or unix:/path/to.sock')
    ] = Address("127.0.0.1")
    port: Annotated[
        Port | None, Meta(description="TCP port; 0: any free port; not for a Unix socket")
    ] = None
    service: Annotated[
        Literal["command", "echo"],
        Meta(description="command answers four-byte commands, echo sends back what it receives"),
    ] = "command"
    backlog: Annotated[
        Backlog, Meta(description="maximum number of connections that wait to be accepted")
    ] = 1024
    reply_terminator: Annotated[
        Terminator, Meta(description='appended to each answer to a command, e.g. "\\r\\n"')
    ] = Terminator("")
    proxy: Annotated[
        Proxy | None,
        Meta(description="requires a PROXY header on each connection; null: no header"),
    ] = None
    tls: Annotated[Tls | None, Meta(description="encryption with TLS; null: no encryption")] = None

    def __post_init__(self) -> None:
        """Set the default port of a TCP listener."""
        super().__post_init__()
        if self.address.path is None and self.port is None:
            force_setattr(self, "port", DEFAULT_PORT)

    def violations(self) -> Iterable[ConstraintViolation]:
        """Return keys that this service or this kind of address does not have."""
        is_tcp = self.address.path is None
        if self.reply_terminator and self.service == "echo":
            message = "the echo service only sends back what it receives; remove this key"
            yield ConstraintViolation("reply_terminator", message, "service")
        if self.port is not None and not is_tcp:
            message = "a Unix socket has no port; remove this key"
            yield ConstraintViolation("port", message, "address")
        if self.proxy is not None and not self.proxy.trusted and is_tcp:
            message = "list the trusted load balancers, e.g. {trusted: [192.0.2.10]}"
            yield ConstraintViolation("proxy", message, "address")
        if self.proxy is not None and self.proxy.trusted and not is_tcp:
            message = "a Unix socket trusts every peer that its file mode lets connect; write {}"
            yield ConstraintViolation("proxy", message, "address")

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

    def excludes(self, other: Listener) -> bool:
        """Tell whether only one of two listeners can be open; `::` is dual-stack."""
        path, its_path = self.address.path, other.address.path
        if path is not None and its_path is not None:
            return paths.without_links(path) == paths.without_links(its_path)
        return self.port == other.port and exclude_each_other(self.address, other.address)


class Daemon(Section, frozen=True):
    """The daemon process."""

    pidfile: Annotated[Path, Meta(description="file with the pid, locked while it runs")] = field(
        default_factory=lambda: Path(paths.pidfile())
    )
    control: Annotated[
        SocketPath, Meta(description="control socket, for status, reload and upgrade")
    ] = field(default_factory=lambda: SocketPath(paths.control()))
    control_group: Annotated[
        Group | None, Meta(description="group whose members may read the status")
    ] = None
    user: Annotated[
        User | None, Meta(description="user to switch to after binding; null: no switch")
    ] = None
    group: Annotated[
        Group | None, Meta(description="group to switch to; null: the user's primary group")
    ] = None
    working_directory: Annotated[Path, Meta(description="working directory of the daemon")] = Path(
        "/"
    )
    umask: Annotated[
        Mode, Meta(description="octal permission bits that files it creates do not get")
    ] = Mode(0o027)
    stop_timeout: Annotated[
        Duration, Meta(description="time that sessions have to end on a stop; then they are killed")
    ] = Duration(10)
    system_call_filter: Annotated[
        bool, Meta(description="refuse system calls that services do not need, to programs too")
    ] = True

    def violations(self) -> Iterable[ConstraintViolation]:
        """Return what contradicts itself."""
        if self.user is not None and self.group is None:
            uid, gid = users.user(self.user)
            if gid is None and uid != os.geteuid():
                message = "this id has no entry on this machine: daemon.group is required"
                yield ConstraintViolation("user", message, "group")


class Log(Section, frozen=True):
    """The log."""

    file: Annotated[Path | None, Meta(description="the log file; null: standard error")] = field(
        default_factory=lambda: Path(paths.log())
    )
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="the lowest level that is logged"),
    ] = "info"
    format: Annotated[
        Literal["json", "logfmt", "console"], Meta(description="json, logfmt or console")
    ] = "json"
    session_rate: Annotated[
        Rate | None,
        Meta(description="lines of the commands of a session, bursts of ten times that; null: all"),
    ] = Rate.parse("100/s")


class Handlers(Section, frozen=True):
    """The handler processes, which serve the clients."""

    spare: Annotated[
        SpareCount, Meta(description="handlers forked in advance that wait for a client")
    ] = 0
    clients_each: Annotated[
        Count, Meta(description="clients that a handler serves, one at a time, before it exits")
    ] = 1


class Limits(Section, frozen=True):
    """Limits on the number of clients."""

    clients: Annotated[Count, Meta(description="clients connected at the same time")] = 1000
    clients_per_source: Annotated[
        Count | Literal["auto"] | None,
        Meta(
            description="of these, from one IPv4 address or IPv6 /64; auto: at most half of "
            "clients; null: no limit"
        ),
    ] = "auto"
    rate_per_source: Annotated[
        Rate | None,
        Meta(description="new sessions of a source, e.g. 20/s or 300/m; null: no limit"),
    ] = None


class Session(Section, frozen=True):
    """The timeouts of a session; null: no timeout."""

    first_command_timeout: Annotated[
        Duration | None, Meta(description="from the connection to the first command")
    ] = Duration(30)
    idle_timeout: Annotated[Duration | None, Meta(description="between commands")] = Duration(300)
    max_duration: Annotated[Duration | None, Meta(description="from the connection to its end")] = (
        None
    )
    send_timeout: Annotated[
        Duration | None, Meta(description="for a client that does not read its answers")
    ] = Duration(10)


class Access(Section, frozen=True):
    """The access lists: the most specific matching network decides; on a tie, deny."""

    allow: Annotated[
        list[Network], Meta(description="networks that may connect; empty: all networks")
    ] = []
    deny: Annotated[list[Network], Meta(description="networks that may not connect")] = []


class Config(Section, frozen=True):
    """The configuration of a daemon."""

    listen: list[Listener] = field(default_factory=lambda: [Listener()])
    daemon: Daemon = field(default_factory=Daemon)
    log: Log = field(default_factory=Log)
    handlers: Handlers = Handlers()
    limits: Limits = Limits()
    session: Session = Session()
    access: Access = Access()
    commands: dict[CommandName, Command | None] = {}

    def __post_init__(self) -> None:
        """Add the built-in commands that the file does not replace or remove."""
        super().__post_init__()
        force_setattr(self, "commands", BUILT_IN_COMMANDS | self.commands)

    def violations(self) -> Iterable[ConstraintViolation]:
        """Return conflicts between listeners and between paths, and removals of no command."""
        if not self.listen:
            yield ConstraintViolation("listen", "at least one listener is required")
        for index, listener in enumerate(self.listen):
            first = next(i for i, one in enumerate(self.listen) if one.excludes(listener))
            if first < index and listener.port != 0:
                other = self.listen[first].name
                which = "" if other == listener.name else f" ({other})"
                message = f"{listener.name} is already used by listen[{first}]{which}"
                yield ConstraintViolation(f"listen[{index}]", message, f"listen[{first}]")
        yield from self._path_conflicts()
        for name, command in self.commands.items():
            if command is None and name not in BUILT_IN_COMMANDS:
                hint = did_you_mean(name, BUILT_IN_COMMANDS)
                message = f"no built-in command of this name to remove{hint}"
                yield ConstraintViolation(f"commands.{name}", message)

    def _path_conflicts(self) -> Iterable[ConstraintViolation]:
        """Return keys with the path of another key, such as a log that is also the pidfile."""
        files: list[tuple[str, str | None, str]] = [
            ("daemon.pidfile", self.daemon.pidfile, paths.pidfile()),
            ("daemon.control", self.daemon.control, paths.control()),
            ("log.file", self.log.file, paths.log()),
        ]
        sockets = [one.address.path for one in self.listen if one.address.path is not None]
        users = {paths.without_links(path): "listen" for path in sockets}
        # Defaults first, so that the key that is reported is one that the file sets.
        for key, path, _ in sorted(files, key=lambda file: file[1] != file[2]):
            if path is None:
                continue
            real = paths.without_links(path)
            if real in users:
                message = f"{path} is already used by {users[real]}"
                yield ConstraintViolation(key, message, users[real])
            users[real] = key
