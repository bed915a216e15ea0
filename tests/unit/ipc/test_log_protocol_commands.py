"""The room for answered commands in the event pipe: a part of it, and the rest for all else."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.ipc.test_log_protocol import Pipe, names, read
from tetrad.ipc import log_protocol
from tetrad.ipc.log_protocol import CLIENT_COMMAND, CLIENT_INVALID, LogWriter, is_fuller

if TYPE_CHECKING:
    from collections.abc import Iterator


class BytePipe(Pipe):
    """A pipe as the event pipe is: the kernel joins small writes."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe2(os.O_NONBLOCK)
        self.capacity = fcntl.fcntl(self.writes, fcntl.F_GETPIPE_SZ)

    def read_all(self) -> bytes:
        """Empty the pipe."""
        return os.read(self.reads, self.capacity)


@pytest.fixture
def pipe() -> Iterator[BytePipe]:
    """Return a pipe."""
    pipe = BytePipe()
    yield pipe
    pipe.close()


@pytest.fixture
def log(pipe: BytePipe) -> LogWriter:
    """Return a log writer with a timeout, as a handler has."""
    return LogWriter(pipe.writes, "info", 0.001)


def flood(log: LogWriter, count: int = 5000) -> None:
    """Log more answered commands than the pipe has room for."""
    for _ in range(count):
        log.event_json("info", CLIENT_COMMAND, '"command":"time"')
    log.flush()


def test_commands_leave_most_of_the_pipe_free(pipe: BytePipe, log: LogWriter) -> None:
    """What has no room is counted; the last write may exceed the share."""
    flood(log)
    data = pipe.read_all()
    most = pipe.capacity * log_protocol.COMMANDS_SHARE + 4096
    assert most - 2 * 4096 < len(data) <= most
    assert data.count(b"client.command") + log.lost == 5000


@pytest.mark.parametrize("event", [CLIENT_INVALID, log_protocol.CLIENT_CONNECTED])
def test_other_events_are_written_behind_a_flood(
    pipe: BytePipe, log: LogWriter, event: str
) -> None:
    """The commands of the same write are left out and counted."""
    flood(log)
    pipe_before = log.lost
    log.event_json("info", CLIENT_COMMAND, '"command":"time"')
    log.event_json("warning", event, "")
    log.event_json("info", CLIENT_COMMAND, '"command":"time"')
    log.event("info", log_protocol.CLIENT_DISCONNECTED, reason="eof")
    log.flush()
    assert log.lost == pipe_before + 2
    last = pipe.read_all().rpartition(b"\x1e")[2]
    assert names(read(b"\x1e" + last)) == [event, "client.disconnected"]


def test_a_command_that_failed_is_no_flood(pipe: BytePipe, log: LogWriter) -> None:
    """Neither is a line with the number of suppressed ones."""
    flood(log)
    before = log.lost
    log.event_json("warning", CLIENT_COMMAND, '"error":"exit status 1"')
    log.event("info", CLIENT_COMMAND, suppressed=7)
    log.flush()
    assert log.lost == before
    assert pipe.read_all().endswith(b'info client.command {"suppressed":7}\n')


def test_commands_have_room_again_when_the_pipe_was_read(pipe: BytePipe, log: LogWriter) -> None:
    """In one write with what came between."""
    flood(log)
    pipe.read_all()
    lost = log.take_lost()
    log.event_json("info", CLIENT_COMMAND, "")
    log.event_json("warning", CLIENT_INVALID, "")
    log.flush()
    assert names(read(pipe.read_all())) == ["client.command", "client.invalid"]
    assert log.lost_total == lost


def test_a_lost_line_with_suppressed_counts_as_these_events(pipe: BytePipe, log: LogWriter) -> None:
    """The line itself is not one more."""
    while True:
        try:
            os.write(pipe.writes, bytes(4096))
        except BlockingIOError:
            break
    log.event("warning", CLIENT_INVALID, suppressed=41)
    log.event("info", "other", suppressed="no number")
    log.flush()
    assert log.lost == 42


def test_only_a_pipe_can_be_too_full(pipe: BytePipe) -> None:
    """Any other descriptor has room."""
    null = os.open(os.devnull, os.O_WRONLY)
    assert not is_fuller(null, -1.0)
    os.close(null)
    assert not is_fuller(pipe.writes, 0.0)
    os.write(pipe.writes, b".")
    assert is_fuller(pipe.writes, 0.0)
    assert not is_fuller(pipe.writes, 1.0)
