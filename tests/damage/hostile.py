"""What hostile clients do, until the server ends it, or until they have done their worst."""

from __future__ import annotations

import contextlib
import itertools
import random
import ssl
import threading
from typing import TYPE_CHECKING, NamedTuple

from clients import ANSWER_BYTES
from processes import in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clients import Client

MEGABYTE = 1 << 20

LONG_ANSWER_BYTES = 8000
LONG_COMMAND = {"long": {"clock": "0123456789" * (LONG_ANSWER_BYTES // 10)}}
"""A command of which a few hundred are more than there is room for on the way to a client."""

TOO_MUCH = 5 * MEGABYTE // LONG_ANSWER_BYTES
"""So many: the kernel's own limit is at four megabytes."""

_turn = threading.Lock()


def _tls_hello() -> bytes:
    said = ssl.MemoryBIO()
    context = ssl.create_default_context()
    session = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return said.read()


_TLS_HELLO = _tls_hello()


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
    _go_on(client, (bytes([byte]) for byte in itertools.cycle(b"time")), 1.0)


def never_end_the_line(client: Client) -> None:
    """Send letters, and never a line ending."""
    _go_on(client, itertools.repeat(b"abcdefgh" * 1024), 0.01)


def _go_on(client: Client, pieces: Iterable[bytes], pause_seconds: float) -> None:
    """Send one piece after another, until the server ends it."""
    client.socket.settimeout(pause_seconds)
    for piece in pieces:
        try:
            client.send(piece)
            if not client.read(1):
                return
        except TimeoutError:
            pass  # the server is still there
        except ConnectionError:
            return


def never_read(client: Client) -> None:
    """Take one answer, ask for more than there is room for, and take none of that."""
    asked = b"long".ljust(128) * TOO_MUCH  # so that no single read is answered at such length
    client.socket.settimeout(0.1)
    with _turn, contextlib.suppress(TimeoutError, ConnectionError):
        # The answers are to fill their room at once, however many wait for theirs.
        client.ask()
        client.send(asked)


def reset_in_the_middle_of_an_answer(client: Client) -> None:
    """Ask for more than there is room for, read a little of it, and tear the connection down."""
    client.send(b"long" * 64)
    client.read(LONG_ANSWER_BYTES // 2)
    client.reset()


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
    client.send(_TLS_HELLO)
    client.read_all()


def send_garbage(megabytes: int) -> Callable[[Client], None]:
    """Return how to send what is no command, more than any buffer holds."""

    def behave(client: Client) -> None:
        for _ in range(megabytes):
            client.send(b"?" * MEGABYTE)
        client.end()
        assert client.read_all() == b""

    return behave


def send_commands(count: int) -> Callable[[Client], None]:
    """Return how to send commands one behind the other, waiting for no answer."""

    def behave(client: Client) -> None:
        sender = in_background(lambda: client.send(b"time" * count + b"quit"))
        heard = 0
        while piece := client.socket.recv(MEGABYTE):
            heard += len(piece)
        sender.join()
        assert heard == count * ANSWER_BYTES + len(b"quit")

    return behave
