"""Accounts of a log: what clients did, against what is written of it and what is reported lost."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

from clients import ANSWER_BYTES
from processes import in_background

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemons import Daemon, Event

OF_A_SESSION = 3
"""Events of a session beside its answered commands: connected, the quit, disconnected."""

OF_A_LIFE = 4
"""Events of a daemon with one listener: started, listening, stopping, stopped."""

_AT_ONCE = 100
"""Commands that a client sends before it reads: their answers fit every buffer."""


class Account(NamedTuple):
    """What is in a log: events written, events reported lost, and losses that nobody could count.

    What the logger says of itself is nobody's event.
    """

    written: int
    lost: int
    unknown: int


def account(lines: list[Event]) -> Account:
    """Count what is in the lines of a log."""
    reports = [line["count"] for line in lines if line["event"] == "log.lost"]
    own = len(reports) + sum(line["event"] == "log.reopened" for line in lines)
    known = [count for count in reports if count is not None]
    return Account(len(lines) - own, sum(known), len(reports) - len(known))


class Sessions:
    """Clients of a daemon that keep count of the events they give rise to."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._lock = threading.Lock()
        self.sent = OF_A_LIFE
        self.failed: list[Exception] = []
        self.served = 0

    def one(self, commands: int = 1) -> None:
        """Be a client who gets that many answers and leaves."""
        client = self._daemon.connect()
        for done in range(0, commands, _AT_ONCE):
            count = min(_AT_ONCE, commands - done)
            client.send(b"time" * count)
            assert len(client.read(ANSWER_BYTES * count)) == ANSWER_BYTES * count
        assert client.quit() == b"quit"
        with self._lock:
            self.sent += commands + OF_A_SESSION
            self.served += 1

    @contextlib.contextmanager
    def meanwhile(self, clients: int, commands: int = 1) -> Iterator[None]:
        """Have that many clients come again and again; none of them may go unserved."""
        over = threading.Event()

        def come() -> None:
            try:
                while not over.is_set():
                    self.one(commands)
            except (AssertionError, OSError) as error:
                self.failed.append(error)

        crowd = [in_background(come) for _ in range(clients)]
        try:
            yield
        finally:
            over.set()
            for client in crowd:
                client.join()
        assert not self.failed, self.failed
