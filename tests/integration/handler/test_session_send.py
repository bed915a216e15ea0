"""What a session sends to a client that takes a little at a time."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, cast

import pytest

from tetrad.handler.progress import SessionProgress
from tetrad.handler.session import Session
from tetrad.ipc.log_protocol import LogWriter
from tetrad.ipc.runtime_config import SessionConfig
from tetrad.ipc.shutdown_pipe import ShutdownPipe

if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator

BYTES_AT_A_TIME = 100
CONFIG = SessionConfig(
    first_command_timeout=None,
    idle_timeout=None,
    max_duration=None,
    send_timeout=None,
    log_rate=None,
)


class SlowClient:
    """A client's socket that takes few bytes at a time, and records what it was given."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.received = b""
        self.given: list[bytes | memoryview] = []

    def fileno(self) -> int:
        """Return a descriptor that is always writable."""
        return self._fd

    def send(self, data: bytes | memoryview, _flags: int) -> int:
        """Take the first bytes."""
        self.given.append(data)
        self.received += data[:BYTES_AT_A_TIME]
        return min(len(data), BYTES_AT_A_TIME)


@pytest.fixture
def client() -> Iterator[SlowClient]:
    """Return a client."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield SlowClient(ours.fileno())


def test_the_rest_of_an_answer_is_not_copied(client: SlowClient) -> None:
    """A megabyte that is taken 100 bytes at a time would be copied ten thousand times."""
    null = os.open(os.devnull, os.O_WRONLY)
    read_end, write_end = os.pipe()
    shutdown_pipe = ShutdownPipe(read_end, 0.0, signals=frozenset())
    progress = SessionProgress(0.0)
    log = LogWriter(null, "error")
    session = Session(cast("_socket.socket", client), CONFIG, shutdown_pipe, log, progress)
    data = bytes(range(250)) * 40
    session.send(data)
    for fd in (null, read_end, write_end):
        os.close(fd)
    assert client.received == data
    assert progress.bytes_out == len(data)
    views = [one for one in client.given if isinstance(one, memoryview)]
    assert len(views) == len(client.given) - 1
    assert all(one.obj is data for one in views)
