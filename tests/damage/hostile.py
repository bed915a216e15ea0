"""What hostile clients do, until the server ends it, or until they have done their worst."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import ssl
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients import Client

LONG_ANSWER_BYTES = 190
LONG_COMMAND = {"long": {"clock": "0123456789" * (LONG_ANSWER_BYTES // 10)}}
"""A command of which a few hundred fill every buffer of a client with little room."""

BYTE_SECONDS = 1.0
"""How long the slow one takes for a byte."""

MEGABYTE = 1 << 20


class Hostile(NamedTuple):
    """A way to be hostile, and the log's word for its end.

    If that is a deadline, it is `seconds` long, and begins when the session was last logged.
    """

    behave: Callable[[Client], None]
    reason: str
    seconds: float | None = None

    @property
    def session(self) -> dict[str, object]:
        """The section of a file with this deadline and no other."""
        names = ("first_command_timeout", "idle_timeout", "max_duration", "send_timeout")
        return dict.fromkeys(names) | ({self.reason: self.seconds} if self.seconds else {})


def say_nothing(client: Client) -> None:
    """Come, and keep silent."""
    client.read_all()


def send_a_byte_a_second(client: Client) -> None:
    """Take a second for each byte of a command."""
    client.socket.settimeout(BYTE_SECONDS)
    for byte in itertools.cycle(b"time"):
        client.send(bytes([byte]))
        with contextlib.suppress(TimeoutError):
            if not client.read(1):
                return


def never_read(client: Client) -> None:
    """Ask, and ask, and take no answer."""
    client.flood(b"long" * 256)


def reset_in_the_middle_of_an_answer(client: Client) -> None:
    """Ask for more than there is room for, read a little of it, and tear the connection down."""
    client.send(b"long" * 256)
    client.read(LONG_ANSWER_BYTES // 2)
    client.reset()


def never_end_the_line(client: Client) -> None:
    """Send letters, as fast as they go, and never a line ending."""
    client.flood(b"abcdefgh" * 8192)


def come_and_go(client: Client) -> None:
    """Connect, and close."""
    client.close()


def quit_and_go_on(client: Client) -> None:
    """Say `quit`, and then a megabyte of something else."""
    client.send(b"quit" + bytes(MEGABYTE))
    client.end()
    assert client.read_all() == b"quit"


def send_random_bytes(client: Client) -> None:
    """Send what no protocol has, and wait for an answer to it."""
    client.send(random.Random(client.name).randbytes(65536))  # noqa: S311 - the same each time
    client.read_all()


def say_hello_in_tls(client: Client) -> None:
    """Begin a TLS session, as a browser does that was given the wrong port."""
    client.send(_tls_hello())
    client.read_all()


@functools.cache
def _tls_hello() -> bytes:
    said = ssl.MemoryBIO()
    context = ssl.create_default_context()
    session = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return said.read()


def send(data: bytes, times: int) -> Callable[[Client], None]:
    """Return how to send something many times, whatever is answered, and then to leave."""

    def behave(client: Client) -> None:
        for _ in range(times):
            client.send(data)
        client.end()
        client.read_all()

    return behave
