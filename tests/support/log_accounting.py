"""Counts the events that clients cause, and compares them with a daemon's log."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

from tests.support.clients import ANSWER_BYTES
from tests.support.processes import in_background

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon, Event

EVENTS_PER_SESSION = 3
"""Events of a session besides its answered commands: connected, `quit`, disconnected."""

EVENTS_PER_DAEMON = 4
"""Events of a daemon with one listener: started, listening, stopping, stopped."""

_BATCH = 100
"""Commands that a client sends before it reads: their answers fit every buffer."""


class EventCounts(NamedTuple):
    """The events in a log: `written`, reported `lost`, and `unknown`, reports without a count.

    The logger's own events are left out. A line with `suppressed` counts as the events that it
    stands for.
    """

    written: int
    lost: int
    unknown: int


def count_events(lines: list[Event]) -> EventCounts:
    """Count the events in the lines of a log."""
    reports = [line["count"] for line in lines if line["event"] == "log.lost"]
    own = len(reports) + sum(line["event"] == "log.reopened" for line in lines)
    suppressed = [line["suppressed"] - 1 for line in lines if "suppressed" in line]
    known = [count for count in reports if count is not None]
    return EventCounts(len(lines) + sum(suppressed) - own, sum(known), len(reports) - len(known))


class Sessions:
    """Runs sessions with a daemon, and counts the events that they cause."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._lock = threading.Lock()
        self.sent = EVENTS_PER_DAEMON
        self.failed: list[Exception] = []
        self.served = 0

    def run_one(self, commands: int = 1) -> None:
        """Run a session with this many answered commands."""
        client = self._daemon.connect()
        for done in range(0, commands, _BATCH):
            count = min(_BATCH, commands - done)
            client.send(b"time" * count)
            assert len(client.read(ANSWER_BYTES * count)) == ANSWER_BYTES * count
        assert client.quit() == b"quit"
        with self._lock:
            self.sent += commands + EVENTS_PER_SESSION
            self.served += 1

    @contextlib.contextmanager
    def under_load(self, clients: int, commands: int = 1) -> Iterator[None]:
        """Run sessions in this many threads during the block; fail if one of them fails."""
        over = threading.Event()

        def come() -> None:
            try:
                while not over.is_set():
                    self.run_one(commands)
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
