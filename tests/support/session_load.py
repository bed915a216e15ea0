"""Clients that run sessions continuously, and the outcome of each session."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.support.clients import ANSWER, ANSWER_BYTES
from tests.support.processes import TIMEOUT_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Client


class Outcome(NamedTuple):
    """The outcome of a session for its client; `since` is a Unix time in seconds.

    `error` is empty if every answer was complete.
    """

    client: str
    since: float
    error: str


class Load:
    """Runs sessions in so many threads during the block; each pauses after a session.

    `connect` returns a new client, or raises OSError.
    """

    def __init__(
        self, connect: Callable[[], Client], clients: int, pause_seconds: float = 0.0
    ) -> None:
        self._connect = connect
        self._pause_seconds = pause_seconds
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        self.outcomes: list[Outcome] = []

    def __enter__(self) -> Self:
        """Start, and wait until some sessions have been served."""
        for thread in self._threads:
            thread.start()
        self.wait_for_sessions()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the last sessions."""
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)
            assert not thread.is_alive(), "a client got no answer"

    @property
    def served(self) -> int:
        """How many sessions were served."""
        return sum(not outcome.error for outcome in list(self.outcomes))

    @property
    def failures(self) -> list[Outcome]:
        """The outcomes of failed sessions."""
        return [outcome for outcome in list(self.outcomes) if outcome.error]

    def wait_for_sessions(self, clients: int = 50) -> None:
        """Wait until some more sessions have been served."""
        enough = self.served + clients
        until(lambda: self.served >= enough, f"served sessions; failed: {self.failures}")

    def _run(self) -> None:
        while not self._over.wait(self._pause_seconds):
            self.outcomes.append(self._run_session())

    def _run_session(self) -> Outcome:
        since, name = time.time(), ""
        try:
            client = self._connect()
            name = client.name
            with contextlib.closing(client):
                error = converse(client)
        except OSError as exception:
            error = repr(exception)
        return Outcome(name, since, error)


def converse(client: Client) -> str:
    """Send `time` and `quit` in one write; return what was wrong with the answers.

    A stop between two writes would end the session: it is idle then.
    """
    answer = client.ask(b"timequit")
    if not ANSWER.fullmatch(answer):
        return f"{len(answer)} of {ANSWER_BYTES} bytes of an answer"
    rest = client.read_all()
    return "" if rest == b"quit" else f"{rest!r} in answer to quit"
