"""The client of the two originals: a conversation with a tetrad, by hand or in words."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

CONNECT_SECONDS = 10.0
REST_SECONDS = 0.05
"""An answer has no end mark: it has ended when nothing comes for so long."""

_READ_BYTES = 65536


class ConversationError(Exception):
    """The other end cannot be reached, or talked to: the text is its name."""

    def __init__(self, name: str, reason: OSError) -> None:
        super().__init__(name)
        self.reason = reason


class Connection:
    """A connected socket, as a context manager. Raises TalkError.

    `timeout` is how many seconds a command may take to be answered; an unknown one never is.
    """

    def __init__(
        self, host: str, port: int, timeout: float, context: ssl.SSLContext | None = None
    ) -> None:
        self._timeout = timeout
        self._socket: socket.socket
        self.name = host
        if not host.startswith("unix:"):
            self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        with self._talking():
            self._connect(host, port)
            if context is not None:
                plain = self._socket
                try:
                    self._socket = context.wrap_socket(plain, server_hostname=_name_of(host))
                except OSError:
                    plain.close()
                    raise

    def _connect(self, host: str, port: int) -> None:
        if host.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(CONNECT_SECONDS)
            self._socket.connect(host.removeprefix("unix:"))
        else:
            try:
                self._socket = socket.create_connection((host, port), CONNECT_SECONDS)
            except UnicodeError:
                raise OSError(errno.EINVAL, "not the name of a host") from None

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """Have what goes wrong told apart from what our own input and output may meet."""
        try:
            yield
        except OSError as error:
            raise ConversationError(self.name, error) from None

    def __enter__(self) -> Self:
        """Be used."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._socket.close()

    def command(self, word: str) -> bytes | None:
        """Send a command, and return its answer; None if the connection is closed."""
        answer = b""
        with self._talking():
            self._socket.sendall(os.fsencode(word))
            self._socket.settimeout(self._timeout)
            try:
                while data := self._socket.recv(_READ_BYTES):
                    answer += data
                    self._socket.settimeout(REST_SECONDS)
            except TimeoutError:
                return answer
        return answer or None

    def echo(self, text: str) -> bytes | None:
        """Send a text, and return as many bytes as it has; None if the connection is closed."""
        sent = os.fsencode(text)
        answer = b""
        with self._talking():
            self._socket.settimeout(CONNECT_SECONDS)
            self._socket.sendall(sent)
            while len(answer) < len(sent):
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    return None
                answer += data
        return answer


def say(connection: Connection, service: str, words: Iterable[str]) -> Iterator[str]:
    """Send words, and return what each was answered; those without an answer give nothing."""
    for word in words:
        answer = connection.echo(word) if service == "echo" else connection.command(word)
        if answer is None:
            return
        if answer:
            yield _text(answer) if service == "echo" else _line(answer)


def converse(connection: Connection, service: str) -> None:
    """Let a person type, line by line, until they or the server end it."""
    print(f"CLIENT >> socket connect to {connection.name}")
    if service == "echo":
        _converse_in_echoes(connection)
    else:
        _converse_in_commands(connection)


def _converse_in_commands(connection: Connection) -> None:
    for word in _lines("CLIENT >> Enter command time or quit : "):
        print(f"CLIENT >> Input command : {_text(os.fsencode(word))}")
        answer = connection.command(word) if word else b""
        if word == "quit":
            return
        if answer is None:
            print("CLIENT >> the server has closed the connection")
            return
        if answer:
            print(f"CLIENT >> received data : {_line(answer)}")


def _converse_in_echoes(connection: Connection) -> None:
    for line in _lines(""):
        answer = connection.echo(line) if line else b""
        if answer is None:
            print("CLIENT >> the server has closed the connection")
            return
        print(f"Server: {_text(answer)}")
        if line == "END":
            print("END ^^")
            return


def _lines(prompt: str) -> Iterator[str]:
    while True:
        print(prompt, end="", flush=True)
        line = sys.stdin.buffer.readline()
        if not line:
            print()
            return
        yield os.fsdecode(line.rstrip(b"\r\n"))


def _name_of(host: str) -> str:
    """Return what the server's certificate has to be about; a Unix socket is this machine's."""
    return "localhost" if host.startswith("unix:") else host


def _text(answer: bytes) -> str:
    return answer.decode("utf-8", "backslashreplace")


def _line(answer: bytes) -> str:
    """Return an answer without the line ending that it may have: a line is what it is shown in."""
    return _text(answer).removesuffix("\n").removesuffix("\r")
