"""Good clients beside bad ones: twenty sessions a second, and how long the slowest took.

They are a process of their own, so that what they wait for is the server and not the test.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from clients import ANSWER, ANSWER_BYTES, Client
from processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    import types

SOURCE = "127.0.0.9"
"""Where they come from, so that nobody else has their names."""

_PAUSE_SECONDS = 0.05


class Regulars:
    """They come for as long as the context lasts; afterwards `sessions` and `slowest` (seconds)."""

    def __init__(self, port: int, source: str = SOURCE) -> None:
        command = [sys.executable, __file__, str(port), source]
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
        """Wait until one has been served."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "open\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: types.TracebackType | None,
    ) -> None:
        """Send them home; fail if one was not served."""
        try:
            said, _ = self._process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        if kind is None:
            assert self._process.returncode == 0, "a good client was not served"
            self.sessions, self.slowest = json.loads(said)


def _serve(port: int, source: str) -> float:
    """Be a client from connect to the server's end; return the seconds."""
    began = time.monotonic()
    address = ("127.0.0.1", port)
    client = Client(socket.create_connection(address, PATIENCE_SECONDS, (source, 0)))
    client.send(b"timequit")
    answers = client.read_all()
    client.close()
    assert ANSWER.fullmatch(answers[:ANSWER_BYTES]), answers
    assert answers[ANSWER_BYTES:] == b"quit", answers
    return time.monotonic() - began


def main(port: int, source: str) -> None:
    """Come again and again until standard input ends; say how often, and the slowest."""
    seconds = [_serve(port, source)]
    print("open", flush=True)  # noqa: T201 - to the test
    while not select.select([sys.stdin], [], [], _PAUSE_SECONDS)[0]:
        seconds.append(_serve(port, source))
    print(json.dumps([len(seconds), max(seconds)]))  # noqa: T201 - to the test


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
