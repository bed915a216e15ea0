"""`tetrad client`: sends words to a daemon and prints the replies, or does so interactively.

The interactive dialogs are those of the two programs that tetrad reproduces.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Self

from tetrad.cli.exit_status import FAILURE, OK, USAGE, CommandError
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    import argparse
    import ssl
    from collections.abc import Iterable, Iterator

CONNECT_TIMEOUT_SECONDS = 10.0

REPLY_END_SECONDS = 0.05
"""A reply has no end mark: it is complete when no more data arrives for this long."""

_READ_BYTES = 65536


class ClientError(Exception):
    """The connection failed; the text is the name of the peer, `reason` the cause."""

    def __init__(self, name: str, reason: OSError) -> None:
        super().__init__(name)
        self.reason = reason


def client(options: argparse.Namespace) -> int:
    """Connect to a daemon and send it words."""
    tls = options.tls or options.ca or options.cert or options.insecure
    if options.key and not options.cert:
        raise CommandError("--key needs --cert, the certificate of the key", USAGE)
    try:
        context = _tls_context(options) if tls else None
        with Connection(options.host, options.port, options.timeout, context) as connection:
            if options.words:
                for reply in replies(connection, options.service, options.words):
                    print(reply, flush=True)
            else:
                print(f"CLIENT >> socket connect to {connection.name}")
                dialog = _echo_dialog if options.service == "echo" else _command_dialog
                dialog(connection)
    except ClientError as error:
        raise CommandError(f"{error}: {_reason(error.reason)}", FAILURE) from None
    return OK


class Connection:
    """A connected socket, as a context manager. Its methods raise ClientError.

    `timeout` is how many seconds to wait for a reply; an unknown command gets none.
    """

    def __init__(
        self, host: str, port: int, timeout: float, context: ssl.SSLContext | None = None
    ) -> None:
        self._timeout = timeout
        self._socket: socket.socket
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

    def command(self, word: str) -> bytes | None:
        """Send a command and return its reply, or None if the server closed the connection."""
        reply = b""
        with self._errors_named():
            self._socket.sendall(os.fsencode(word))
            self._socket.settimeout(self._timeout)
            try:
                while data := self._socket.recv(_READ_BYTES):
                    reply += data
                    self._socket.settimeout(REPLY_END_SECONDS)
            except TimeoutError:
                return reply
        return reply or None

    def echo(self, text: str) -> bytes | None:
        """Send a text and return as many bytes, or None if the server closed the connection."""
        sent = os.fsencode(text)
        reply = b""
        with self._errors_named():
            self._socket.settimeout(CONNECT_TIMEOUT_SECONDS)
            self._socket.sendall(sent)
            while len(reply) < len(sent):
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    return None
                reply += data
        return reply


def replies(connection: Connection, service: str, words: Iterable[str]) -> Iterator[str]:
    """Send words and yield their replies as lines; a word without a reply yields nothing."""
    for word in words:
        reply = connection.echo(word) if service == "echo" else connection.command(word)
        if reply is None:
            return
        if reply:
            yield _text(reply) if service == "echo" else _line(reply)


def _command_dialog(connection: Connection) -> None:
    for word in _input_lines("CLIENT >> Enter command time or quit : "):
        print(f"CLIENT >> Input command : {_text(os.fsencode(word))}")
        reply = connection.command(word) if word else b""
        if word == "quit":
            return
        if reply is None:
            print("CLIENT >> the server closed the connection")
            return
        if reply:
            print(f"CLIENT >> received data : {_line(reply)}")


def _echo_dialog(connection: Connection) -> None:
    for line in _input_lines(""):
        reply = connection.echo(line) if line else b""
        if reply is None:
            print("CLIENT >> the server closed the connection")
            return
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
        raise CommandError(f"{', '.join(files)}: {_reason(error)}", FAILURE) from None
    return context


def _reason(error: OSError) -> str:
    """Return the reason of an error of the connection or of TLS."""
    import ssl

    from tetrad.tls.errors import describe

    if isinstance(error, ssl.SSLError):
        return describe(error, "server")
    if isinstance(error, TimeoutError) and "handshake" in str(error):
        return "TLS handshake timeout; the listener may not have TLS"
    return reason_of(error)
