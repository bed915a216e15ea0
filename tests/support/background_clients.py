"""Well-behaved clients beside hostile ones: 20 sessions per second, and the slowest one's time.

They run in a process of their own, so that their times do not include waits of the test.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from tests.support.clients import ANSWER, ANSWER_BYTES, Client
from tests.support.processes import TIMEOUT_SECONDS

if TYPE_CHECKING:
    import types

SOURCE = "127.0.0.9"
"""Their address, which no other client of a test has."""

_PAUSE_SECONDS = 0.05


class BackgroundClients:
    """Clients that connect during the block; then `sessions` and `slowest` (s) are set."""

    def __init__(self, port: int, source: str = SOURCE) -> None:
        command = [sys.executable, "-m", __name__, str(port), source]
        self._process = subprocess.Popen(
            command,
            env={"PYTHONPATH": ":".join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.sessions = 0
        self.slowest = 0.0

    def __enter__(self) -> Self:
        """Wait for the end of the first session."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: types.TracebackType | None,
    ) -> None:
        """Stop the process; fail if a session failed."""
        try:
            report, _ = self._process.communicate(timeout=TIMEOUT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        if kind is None:
            assert self._process.returncode == 0, "a background client was not served"
            self.sessions, self.slowest = json.loads(report)


def _serve(port: int, source: str) -> float:
    """Run a session until the server closes it; return its time in seconds."""
    began = time.monotonic()
    address = ("127.0.0.1", port)
    client = Client(socket.create_connection(address, TIMEOUT_SECONDS, (source, 0)))
    client.send(b"timequit")
    answers = client.read_all()
    client.close()
    assert ANSWER.fullmatch(answers[:ANSWER_BYTES]), answers
    assert answers[ANSWER_BYTES:] == b"quit", answers
    return time.monotonic() - began


def main(port: int, source: str) -> None:
    """Run sessions until standard input ends; print their number and the slowest time."""
    seconds = [_serve(port, source)]
    print("open", flush=True)  # noqa: T201 - to the test
    while not select.select([sys.stdin], [], [], _PAUSE_SECONDS)[0]:
        seconds.append(_serve(port, source))
    print(json.dumps([len(seconds), max(seconds)]))  # noqa: T201 - to the test


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
