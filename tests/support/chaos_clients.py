"""Clients of a chaos run: they connect, converse and disconnect, and note what they have seen.

They know nothing of the disturbances, and judge nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.support.processes import in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT_SECONDS = 20.0

COMPLETE = "complete"
"""The client has read every answer, and closed the connection itself if it had not sent `quit`."""

EOF, RESET, NOT_CONNECTED, TIMEOUT = "eof", "reset", "not connected", "timeout"

COMMAND, ECHO, BALANCED = "command", "echo", "balanced"
"""What a client talks to; `balanced` is an echo service behind a PROXY header."""

WORDS = {b"time": 19, b"quit": 4, b"prog": 5}
"""The commands, and how many bytes each answers; `prog` runs a program."""

PROGRAM = "sleep 0.1; echo done"

_RETRY_SECONDS = 0.05
"""The pause of a client that was not served."""

_CONVERSATIONS = (
    *(b"time", b"timequit", b"quit", b"timetimetimequit", b"timeoops", b""),
    *(b"prog", b"timeprogquit"),
)

_PAUSES_SECONDS = (0, 0, 0, 0.005, 0.05, 0.5)


class Observation(NamedTuple):
    """One session as its client saw it; `source` is an address that no other client has.

    `began` and `ended` are Unix times in seconds; `end` is one of the words above. `sent` is
    without the PROXY header.
    """

    source: str
    service: str
    began: float
    ended: float
    sent: bytes
    received: bytes
    end: str


class Crowd:
    """Clients that come one after another in several threads, to the `places` of the services."""

    def __init__(self, seed: int, places: Callable[[str], tuple[str, int]]) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - it must be repeatable
        self._places = places
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self._bursts: list[threading.Thread] = []
        self.observations: list[Observation] = []

    @contextlib.contextmanager
    def coming(self, threads: int) -> Iterator[None]:
        """Have clients come during the block."""
        crowd = [in_background(self._come) for _ in range(threads)]
        try:
            yield
        finally:
            self._over.set()
            for one in crowd + self._bursts:
                one.join()

    def burst(self, service: str, clients: int) -> None:
        """Have so many more clients come to a service, all at once; return at once."""
        self._bursts = [thread for thread in self._bursts if thread.is_alive()]
        self._bursts += [in_background(lambda: self.converse(service)) for _ in range(clients)]

    def _come(self) -> None:
        while not self._over.is_set():
            seen = self.converse()
            if seen.end != COMPLETE:
                time.sleep(_RETRY_SECONDS)

    def converse(self, service: str | None = None) -> Observation:
        """Run a session, and note what its client has seen."""
        number = next(self._numbers)
        source = f"127.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        service = service or self._rng.choice((COMMAND, COMMAND, ECHO, BALANCED))
        sent = self._rng.choice(_CONVERSATIONS)
        if service != COMMAND:
            sent = self._rng.randbytes(self._rng.randrange(1, 500))
        pause = self._rng.choice(_PAUSES_SECONDS)
        began, received = time.time(), bytearray()
        end = _run(service, source, self._places(service), sent, pause, received)
        seen = Observation(source, service, began, time.time(), sent, bytes(received), end)
        self.observations.append(seen)
        return seen


def _run(  # noqa: PLR0913, PLR0917 - one conversation
    service: str,
    source: str,
    place: tuple[str, int],
    sent: bytes,
    pause: float,
    received: bytearray,
) -> str:
    """Run a session, append to `received`, and return how it ended."""
    has_connected = False
    wanted = len(sent)
    if service == COMMAND:
        wanted = sum(sent.count(word) * size for word, size in WORDS.items())
    try:
        with socket.socket() as client:
            client.settimeout(TIMEOUT_SECONDS)
            client.bind((source, 0))
            client.connect(place)
            has_connected = True
            if service == BALANCED:
                ports = f"{client.getsockname()[1]} {place[1]}"
                client.sendall(f"PROXY TCP4 {source} {place[0]} {ports}\r".encode())
                time.sleep(pause)
                client.sendall(b"\n")
            time.sleep(pause)  # until then the server waits
            client.sendall(sent)
            while len(received) < wanted or sent.endswith(b"quit"):
                data = client.recv(4096)
                if not data:
                    return COMPLETE if len(received) == wanted else EOF
                received += data
            return COMPLETE
    except TimeoutError:
        return TIMEOUT
    except OSError:
        return RESET if has_connected else NOT_CONNECTED
