"""Behaviour of hostile clients: each function runs until the server ends the connection."""

from __future__ import annotations

import contextlib
import itertools
import random
import ssl
import threading
from typing import TYPE_CHECKING, NamedTuple

from tests.support.clients import ANSWER_BYTES
from tests.support.processes import in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.support.clients import Client

MEGABYTE = 1 << 20

LONG_ANSWER_BYTES = 8000
LONG_COMMAND = {"long": {"clock": "0123456789" * (LONG_ANSWER_BYTES // 10)}}
"""A command whose answers fill the send and receive buffers after a few hundred."""

ANSWERS_TO_FILL_BUFFERS = 5 * MEGABYTE // LONG_ANSWER_BYTES
"""So many: Linux limits the buffers to 4 MiB by default."""

_one_at_a_time = threading.Lock()


def _tls_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


_TLS_HELLO = _tls_hello()


class Hostile(NamedTuple):
    """A hostile behaviour, and the `reason` with which the log shows its end.

    If the reason is a deadline, it lasts `seconds` from the last logged event of the session.
    """

    behave: Callable[[Client], None]
    reason: str
    seconds: float | None = None

    @property
    def session(self) -> dict[str, object]:
        """The `session` section with this deadline and no other."""
        names = ("first_command_timeout", "idle_timeout", "max_duration", "send_timeout")
        return dict.fromkeys(names) | ({self.reason: self.seconds} if self.seconds else {})


def stay_silent(client: Client) -> None:
    """Send nothing."""
    client.read_all()


def send_a_byte_a_second(client: Client) -> None:
    """Send the bytes of a command one per second."""
    _send_pieces(client, (bytes([byte]) for byte in itertools.cycle(b"time")), 1.0)


def never_send_newline(client: Client) -> None:
    """Send letters without a newline."""
    _send_pieces(client, itertools.repeat(b"abcdefgh" * 1024), 0.01)


def _send_pieces(client: Client, pieces: Iterable[bytes], pause_seconds: float) -> None:
    """Send one piece after another until the server closes the connection."""
    client.socket.settimeout(pause_seconds)
    for piece in pieces:
        try:
            client.send(piece)
            if not client.read(1):
                return
        except TimeoutError:
            pass  # the connection is still open
        except ConnectionError:
            return


def never_read(client: Client) -> None:
    """Read one answer, request more than the buffers hold, and read none of it."""
    asked = (
        b"long".ljust(128) * ANSWERS_TO_FILL_BUFFERS
    )  # so that no single read contains many commands
    client.socket.settimeout(0.1)
    with _one_at_a_time, contextlib.suppress(TimeoutError, ConnectionError):
        # One client at a time, so that its answers fill the buffers at once.
        client.ask()
        client.send(asked)


def reset_in_the_middle_of_an_answer(client: Client) -> None:
    """Request more than the buffers hold, read a part, and reset the connection."""
    client.send(b"long" * 64)
    client.read(LONG_ANSWER_BYTES // 2)
    client.reset()


def connect_and_close(client: Client) -> None:
    """Connect, and close."""
    client.close()


def send_after_quit(client: Client) -> None:
    """Send `quit`, and then a megabyte more."""
    client.send(b"quit" + bytes(MEGABYTE))
    client.half_close()
    assert client.read_all() == b"quit"


def send_random_bytes(client: Client) -> None:
    """Send random bytes, and wait for an answer."""
    client.send(random.Random(client.name).randbytes(65536))  # noqa: S311 - the same each time
    client.read_all()


def send_tls_client_hello(client: Client) -> None:
    """Send a TLS ClientHello, as a browser does with a wrong port."""
    client.send(_TLS_HELLO)
    client.read_all()


def send_garbage(megabytes: int) -> Callable[[Client], None]:
    """Return a client that sends so many megabytes of invalid commands."""

    def behave(client: Client) -> None:
        for _ in range(megabytes):
            client.send(b"?" * MEGABYTE)
        client.half_close()
        assert client.read_all() == b""

    return behave


def send_commands(count: int) -> Callable[[Client], None]:
    """Return a client that sends so many commands without waiting for answers."""

    def behave(client: Client) -> None:
        sender = in_background(lambda: client.send(b"time" * count + b"quit"))
        received = 0
        while piece := client.socket.recv(MEGABYTE):
            received += len(piece)
        sender.join()
        assert received == count * ANSWER_BYTES + len(b"quit")

    return behave
