"""`tetrad client`: sends words to a daemon and prints the replies, or does so interactively.

The interactive dialogs are those of the two programs that tetrad reproduces.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple, Self

from tetrad.cli.configuration import load
from tetrad.cli.exit_status import FAILURE, OK, USAGE, CommandError, print_line
from tetrad.config.command_model import BUILT_IN_COMMANDS, Close
from tetrad.config.model import DEFAULT_PORT
from tetrad.config.types import CommandName, Duration
from tetrad.ipc import control_client
from tetrad.ipc.control_messages import Status
from tetrad.launch import running_daemon
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse
    import ssl
    from collections.abc import Iterator, Mapping, Sequence

    from tetrad.config.command_model import Command
    from tetrad.config.model import Config, Listener

CONNECT_TIMEOUT_SECONDS = 10.0

REPLY_END_SECONDS = 0.05
"""An answer has no end mark: it is complete when no more data arrives for this long."""

_READ_BYTES = 65536

_QUIT = "quit"
"""The interactive client that tetrad reproduces does not print the answer to this command."""

_MAY_HAVE_TLS = "the listener has TLS (use --tls)"

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound
"""Where to connect to a listener at all addresses."""


class Target(NamedTuple):
    """Where to connect, the service there, and its commands with None for removed ones."""

    host: str
    port: int
    service: str
    commands: Mapping[CommandName, Command | None] = BUILT_IN_COMMANDS

    @property
    def names(self) -> list[str]:
        """The names of the commands."""
        return [name for name, command in self.commands.items() if command is not None]

    def is_goodbye(self, word: str) -> bool:
        """Tell whether the server closes the connection after its answer to a word."""
        return isinstance(self.commands.get(CommandName(word)), Close)


class ClientError(Exception):
    """The connection failed; the text is the name of the peer, `reason` the cause."""

    def __init__(self, name: str, reason: OSError) -> None:
        super().__init__(name)
        self.reason = reason


def client(options: argparse.Namespace) -> int:
    """Connect to a daemon and send it words."""
    if options.key and not options.cert:
        raise CommandError("--key needs --cert, the certificate of the key", USAGE)
    target = _target(options)
    try:
        context = _tls_context(options) if _uses_tls(options) else None
        with Connection(target, options.timeout, context) as connection:
            if options.words:
                _send_words(connection, target, options.words)
            else:
                print_line(f"CLIENT >> socket connect to {connection.name}")
                if target.service == "echo":
                    _echo_dialog(connection)
                else:
                    _command_dialog(connection, target)
    except ClientError as error:
        raise CommandError(f"{error}: {_reason(error.reason)}", FAILURE) from None
    return OK


def _target(options: argparse.Namespace) -> Target:
    """Return the target of the options. What they do not name is that of a listener of the file.

    If they name the whole address, the file is not needed, and read only if -c names it.
    """
    host, port, service = options.host, options.port, options.service
    is_complete = host and (port or host.startswith("unix:"))
    if is_complete and not options.config:
        return Target(host, port or 0, service or "command")
    config = load(options).checked().config
    listener: Listener | None
    if host is None and port is None:
        fitting = [one for one in config.listen if service in {None, one.service}]
        if not fitting:
            message = f"no listener has the service {service}; use --host and --port"
            raise CommandError(message, FAILURE)
        listener, service = fitting[0], fitting[0].service
        if listener.tls is not None and not _uses_tls(options):
            raise CommandError(f"{listener.name}: the listener has TLS; use --tls", FAILURE)
    else:
        listener = next((one for one in config.listen if one.address.path is None), None)
    if host is None:
        address = "127.0.0.1" if listener is None else str(listener.address)
        host = _LOOPBACK.get(address, address)
    if port is None and not host.startswith("unix:"):
        port = DEFAULT_PORT if listener is None else listener.port or _free_port(config, listener)
    return Target(host, port or 0, service or "command", config.commands)


def _free_port(config: Config, listener: Listener) -> int:
    """Return the port that the running daemon has for a listener with port 0."""
    try:
        status = running_daemon.ask(config.daemon, "status", Status)
    except control_client.ControlError as error:
        raise CommandError(f"port 0 is any free port; use --port: {error}", FAILURE) from None
    wanted = (listener.address, listener.service)
    for one in status.listeners:
        if one.port and (one.address, one.service) == wanted:
            return one.port
    raise CommandError("port 0 is any free port; use --port: tetrad status shows it", FAILURE)


class Connection:
    """A connected socket, as a context manager. Its methods raise ClientError.

    `timeout` is how many seconds to wait for an answer; an unknown command gets none. `is_closed`:
    whether the server has closed the connection.
    """

    def __init__(
        self, target: Target, timeout: float, context: ssl.SSLContext | None = None
    ) -> None:
        host, port, self._service, _ = target
        self._timeout = timeout
        self._is_encrypted = context is not None
        self._socket: socket.socket
        self.is_closed = False
        self.name = host
        if not host.startswith("unix:"):
            self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        with self._errors_named():
            self._connect(host, port)
            if context is not None:
                plain = self._socket
                # The certificate of a server at a Unix socket is for this host.
                name = "localhost" if host.startswith("unix:") else host
                try:
                    self._socket = context.wrap_socket(plain, server_hostname=name)
                except OSError:
                    plain.close()
                    raise

    def _connect(self, host: str, port: int) -> None:
        if host.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(CONNECT_TIMEOUT_SECONDS)
            try:
                self._socket.connect(host.removeprefix("unix:"))
            except OSError:
                self._socket.close()
                raise
        else:
            try:
                self._socket = socket.create_connection((host, port), CONNECT_TIMEOUT_SECONDS)
            except UnicodeError:
                raise OSError(errno.EINVAL, "not a valid host name") from None
            if _is_own_peer(self._socket):
                self._socket.close()
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Raise ClientError for an error of the connection, unlike one of standard output."""
        try:
            yield
        except OSError as error:
            raise ClientError(self.name, error) from None

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, word: str) -> bytes | None:
        """Send a word and return the answer, or None if it does not come in time.

        An answer of the service echo is as long as the word; any other ends with a pause of
        REPLY_END_SECONDS.
        """
        sent = os.fsencode(word)
        echoes = self._service == "echo"
        expected = len(sent) if echoes else sys.maxsize
        reply = b""
        with self._errors_named():
            try:
                self._socket.settimeout(self._timeout)
                self._socket.sendall(sent)
                while len(reply) < expected and not self.is_closed:
                    data = self._socket.recv(_READ_BYTES)
                    reply += data
                    self.is_closed = not data
                    if not echoes:
                        self._socket.settimeout(REPLY_END_SECONDS)
            except TimeoutError:
                pass
            except ConnectionError:
                self.is_closed = True
            if (reply == sent) if echoes else reply:
                return reply
            if not sent.startswith(reply):
                raise OSError(errno.EPROTO, f"the answer to {word} is not an echo of it")
            if self.is_closed:
                raise OSError(errno.ECONNRESET, self._why_closed(word))
        return None

    def _why_closed(self, word: str) -> str:
        hint = "" if self._is_encrypted else f", or {_MAY_HAVE_TLS}"
        reason = f"its log has the reason{hint}"
        return f"the server closed the connection without an answer to {word}: {reason}"

    def no_answer(self, *words: str) -> ClientError:
        """Return the error for words without an answer."""
        causes = ["the command is unknown"] if self._service == "command" else []
        causes += [] if self._is_encrypted else [_MAY_HAVE_TLS]
        reason = ", or ".join([*causes, "the server is slower than --timeout"])
        text = f"no answer to {', '.join(words)} within {Duration(self._timeout)}: {reason}"
        return ClientError(self.name, OSError(errno.ETIMEDOUT, text))


def _is_own_peer(connected: socket.socket) -> bool:
    """Tell whether a socket is connected to itself.

    That happens if nothing listens at a port of this host, and the kernel chooses the same port for
    the client (net.ipv4.ip_local_port_range). It would read its own words as answers.
    """
    try:
        return bool(connected.getsockname() == connected.getpeername())
    except OSError:
        return False  # already reset, which the next call reports


def _send_words(connection: Connection, target: Target, words: Sequence[str]) -> None:
    """Print the answer to each word as a line. Raises ClientError if one was not answered."""
    unanswered = []
    for word in words:
        reply = connection.ask(word)
        if reply is None:
            unanswered.append(word)
        else:
            print(_text(reply) if target.service == "echo" else _line(reply), flush=True)
    if unanswered:
        raise connection.no_answer(*unanswered)


def _command_dialog(connection: Connection, target: Target) -> None:
    *others, last = target.names or [""]
    choice = f"{', '.join(others)} or {last}" if others else last
    for word in _input_lines(f"CLIENT >> Enter command {choice} : "):
        print(f"CLIENT >> Input command : {_text(os.fsencode(word))}")
        reply = connection.ask(word) if word else None
        if reply and word != _QUIT:
            print(f"CLIENT >> received data : {_line(reply)}")
        if connection.is_closed or target.is_goodbye(word):
            return


def _echo_dialog(connection: Connection) -> None:
    for line in _input_lines(""):
        reply = connection.ask(line)
        if reply is None:
            raise connection.no_answer(line)
        print(f"Server: {_text(reply)}")
        if line == "END":
            print("END ^^")
            return


def _input_lines(prompt: str) -> Iterator[str]:
    """Yield the lines of standard input without their ends; `prompt` is printed before each."""
    while True:
        print(prompt, end="", flush=True)
        line = sys.stdin.buffer.readline()
        if not line:
            print()
            return
        yield os.fsdecode(line.rstrip(b"\r\n"))


def _text(reply: bytes) -> str:
    return reply.decode("utf-8", "backslashreplace")


def _line(reply: bytes) -> str:
    """Return a reply without the line end of `reply_terminator`, as it is printed as a line."""
    return _text(reply).removesuffix("\n").removesuffix("\r")


def _uses_tls(options: argparse.Namespace) -> bool:
    return bool(options.tls or options.ca or options.cert or options.insecure)


def _tls_context(options: argparse.Namespace) -> ssl.SSLContext:
    """Return the TLS context of the options. Raises CommandError or OSError."""
    import ssl

    files = [file for file in (options.ca, options.cert, options.key) if file]
    for file in files:
        os.close(os.open(file, os.O_RDONLY))  # unlike ssl's, the OSError has the file's name
    context = ssl.create_default_context()
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if options.ca:
            context.load_verify_locations(options.ca)
        if options.cert:
            context.load_cert_chain(options.cert, options.key)
    except ssl.SSLError as error:
        raise CommandError(_file_problem(error, options), FAILURE) from None
    return context


def _file_problem(error: ssl.SSLError, options: argparse.Namespace) -> str:
    """Return which file of the options OpenSSL did not accept, and why."""
    from tetrad.config.pem import PemError, PemFile
    from tetrad.tls.errors import describe_key

    try:
        for file in filter(None, (options.ca, options.cert)):
            PemFile(file).certificates()
        if not options.cert:
            return f"{options.ca}: {_reason(error)}"
        key = PemFile(options.key or options.cert)
        is_encrypted = any(one.is_encrypted for one in key.private_keys())
    except PemError as problem:
        return str(problem)
    return f"{key.path}: {describe_key(error, is_encrypted=is_encrypted)}"


def _reason(error: OSError) -> str:
    """Return the reason of an error of the connection or of TLS."""
    import ssl

    from tetrad.tls.errors import describe

    if isinstance(error, ssl.SSLError):
        return describe(error, "server")
    if isinstance(error, TimeoutError) and "handshake" in str(error):
        return "TLS handshake timeout; the listener may not have TLS"
    return reason_of(error)
