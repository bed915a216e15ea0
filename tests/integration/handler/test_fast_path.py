"""The fast path: which sessions end there, and what the slow path gets of the others."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tetrad.handler import commands
from tetrad.handler.fast_path import FastPath
from tetrad.handler.idle_wait import IdleWait
from tetrad.ipc import exit_notices, log_protocol
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.system import sockets
from tetrad.system.proctitle import ProcessTitle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.handler.progress import SessionProgress
    from tetrad.ipc.fd_passing import ClientHandoff
    from tetrad.ipc.runtime_config import SessionConfig

CONTEXT = b'"client":"192.0.2.7:38276"'
NOTICE = exit_notices.make_notice(exit_notices.EXITING, 7)


NO_DEADLINES: SessionConfig = {
    "first_command_timeout": None,
    "idle_timeout": None,
    "max_duration": None,
    "send_timeout": None,
    "log_rate": None,
}


class RecordedTitle(ProcessTitle):
    """A title that is recorded and not shown."""

    def __init__(self) -> None:
        self.text = b""

    def show(self, text: bytes) -> None:
        """Record the title."""
        self.text = text


class Connection:
    """A client, a server with a fast path, and pipes in the place of the logger and the master.

    A request to stop is in the shutdown pipe, so a wait for the client ends at once.
    """

    def __init__(self, level: str = "info", close: str = "quit", terminator: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            sockets.set_recv_timeout(listening)
            self.client = socket.create_connection(listening.getsockname())
            self.server, _ = listening.accept()
        self.server.setblocking(True)  # noqa: FBT003 - its only argument
        self._events_read, self._events_write = os.pipe()
        self._notices_read, self._notices_write = os.pipe()
        self._shutdown_read, self._shutdown_write = os.pipe()
        os.set_blocking(self._events_read, False)
        os.set_blocking(self._notices_read, False)
        os.write(self._shutdown_write, b".")
        config: dict[str, Any] = {
            "time": {"kind": "clock", "text": "%Y/%m/%d %H:%M:%S", "timezone": "UTC"},
            "quit": {"kind": "close", "text": close, "timezone": ""},
        }
        self._progress: SessionProgress | None = None
        self.log = log_protocol.LogWriter(self._events_write, level)
        self.title = RecordedTitle()
        shutdown_pipe = ShutdownPipe(self._shutdown_read, 0.0, signals=frozenset())
        self._fast_path = FastPath(
            commands.make(config),
            terminator.encode(),
            self.log,
            self._notices_write,
            IdleWait(NO_DEADLINES, shutdown_pipe, self.title),
            self._slow_path,
        )

    def close(self) -> None:
        """Close everything."""
        self.client.close()
        self.server.close()
        os.close(self._events_read)
        os.close(self._events_write)
        os.close(self._notices_read)
        os.close(self._notices_write)
        os.close(self._shutdown_read)
        os.close(self._shutdown_write)

    def serve(self, *writes: bytes) -> SessionProgress | None:
        """Serve the client after these writes; return what the slow path gets, if anything."""
        for data in writes:
            self.client.sendall(data)
        self._fast_path.refresh_answers()
        self._progress = None
        handoff = ("192.0.2.7:38276", "inet", 0, CONTEXT, "1f-1")
        self._fast_path.serve(self.server, handoff, NOTICE)
        return self._progress

    def _slow_path(
        self, _socket: object, _client: ClientHandoff, progress: SessionProgress, _notice: bytes
    ) -> bool:
        self._progress = progress
        return True

    def fill_event_pipe(self) -> None:
        """Leave no room in the pipe to the logger."""
        os.set_blocking(self._events_write, False)
        try:
            while True:
                os.write(self._events_write, bytes(4096))
        except BlockingIOError:
            pass

    def notices(self) -> bytes:
        """Return what the master would read."""
        try:
            return os.read(self._notices_read, 65536)
        except BlockingIOError:
            return b""

    def log_lines(self) -> list[str]:
        """Return what the logger would read: the context, then a line for each event."""
        try:
            return os.read(self._events_read, 65536).decode().split("\n")[:-1]
        except BlockingIOError:
            return []


@pytest.fixture
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection, closed in the end; a test may parametrize it with other settings."""
    connection = Connection(**getattr(request, "param", {}))
    yield connection
    connection.close()


def event_of(line: str) -> tuple[str, dict[str, Any]]:
    """Return an event's name and fields."""
    _, _, event, fields = line.split(" ", 3)
    return event, json.loads(fields)


def test_a_session_of_one_command_ends_on_the_fast_path(connection: Connection) -> None:
    """The client has its answer, and all events are one write to the log."""
    connection.client.sendall(b"quit")
    connection.client.shutdown(socket.SHUT_WR)
    assert connection.serve() is None
    assert connection.client.recv(9) == b"quit"
    context, *lines = connection.log_lines()
    assert json.loads(context.removeprefix("\x1e")) == {
        "pid": os.getpid(),
        "client": "192.0.2.7:38276",
    }
    connected, command, (disconnected, fields) = map(event_of, lines)
    assert connected == ("client.connected", {})
    assert command == ("client.command", {"command": "quit"})
    assert 0 <= fields.pop("duration") < 60
    assert (disconnected, fields) == (
        "client.disconnected",
        {"reason": "quit", "bytes_in": 4, "bytes_out": 4, "commands": 1},
    )


def test_the_exit_notice_of_a_finished_session_is_sent(connection: Connection) -> None:
    """Once."""
    connection.client.close()
    connection.serve()
    assert connection.notices() == NOTICE


def test_the_exit_notice_of_an_unfinished_session_is_not_sent(connection: Connection) -> None:
    """The slow path sends it."""
    connection.serve(b"time")
    assert connection.notices() == b""


def test_lost_events_of_a_finished_session_are_counted_in_its_notice(
    connection: Connection,
) -> None:
    """Two events, when the pipe stays full."""
    connection.fill_event_pipe()
    connection.client.close()
    connection.serve()
    assert connection.notices() == exit_notices.with_lost_count(NOTICE, 2)


def test_a_client_that_disconnects_at_once_is_logged(connection: Connection) -> None:
    """With the reason eof."""
    connection.client.close()
    assert connection.serve() is None
    _, _, disconnected = connection.log_lines()
    assert event_of(disconnected)[1]["reason"] == "eof"


@pytest.mark.parametrize("data", [b"tim", b"time\r\n", b"timetime", b"help", b"x" * 1000])
def test_anything_but_one_command_takes_the_slow_path(connection: Connection, data: bytes) -> None:
    """It gets the input that was read and not answered, and nothing is logged yet."""
    progress = connection.serve(data)
    assert progress is not None
    pending = progress.pending
    assert pending == data[: len(pending)] != b""
    assert (progress.bytes_in, progress.bytes_out, progress.commands) == (len(pending), 0, 0)
    assert not progress.is_closing
    assert connection.log_lines() == []


def test_an_idle_client_takes_the_slow_path(connection: Connection) -> None:
    """Its command is answered, the log and the process title are up to date."""
    progress = connection.serve(b"time")
    assert progress is not None
    assert ANSWER.fullmatch(connection.client.recv(99))
    counts = (progress.commands, progress.bytes_in, progress.bytes_out)
    assert (progress.pending, *counts) == (b"", 1, 4, 19)
    context, *lines = connection.log_lines()
    assert json.loads(context.removeprefix("\x1e"))["client"] == "192.0.2.7:38276"
    events = [event_of(line) for line in lines]
    assert events == [("client.connected", {}), ("client.command", {"command": "time"})]
    assert progress.log_lines == b""
    assert connection.title.text == b"handler 192.0.2.7:38276"


def test_the_times_of_a_session_are_passed_on(connection: Connection) -> None:
    """Its start, and that of its last command, if there was one."""
    silent, asking = connection.serve(), connection.serve(b"time")
    assert silent is not None
    assert asking is not None
    assert silent.last_command is None
    assert asking.last_command is not None
    assert silent.started < asking.started < asking.last_command


def test_lost_events_of_an_unfinished_session_are_counted(connection: Connection) -> None:
    """Two events, when the pipe stays full."""
    connection.fill_event_pipe()
    assert connection.serve(b"time") is not None
    assert connection.log.take_lost() == 2


def test_a_client_that_quits_and_stays_takes_the_slow_path(connection: Connection) -> None:
    """It has its answer; the slow path waits for it to close."""
    progress = connection.serve(b"quit")
    assert progress is not None
    assert progress.is_closing
    assert connection.client.recv(9) == b"quit"
    assert connection.client.recv(9) == b""


def test_an_error_is_passed_to_the_slow_path(connection: Connection) -> None:
    """Here, a reset."""
    connection.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
    connection.client.close()
    progress = connection.serve()
    assert progress is not None
    assert isinstance(progress.error, ConnectionResetError)


@pytest.mark.parametrize("connection", [{"close": "x" * 257}], indirect=True)
def test_a_long_answer_takes_the_slow_path(connection: Connection) -> None:
    """A write never blocks on the fast path."""
    progress = connection.serve(b"quit")
    assert progress is not None
    assert (progress.pending, progress.bytes_out) == (b"quit", 0)


@pytest.mark.parametrize("connection", [{"terminator": "\r\n"}], indirect=True)
def test_a_prepared_answer_ends_with_the_terminator(connection: Connection) -> None:
    """It counts in bytes_out."""
    progress = connection.serve(b"quit")
    assert progress is not None
    assert (connection.client.recv(9), progress.bytes_out) == (b"quit\r\n", 6)


@pytest.mark.parametrize("connection", [{"level": "warning"}], indirect=True)
def test_nothing_is_logged_below_the_level(connection: Connection) -> None:
    """At level warning a session without problems leaves no line."""
    progress = connection.serve(b"time")
    assert progress is not None
    assert progress.log_lines == b""
    assert ANSWER.fullmatch(connection.client.recv(99))
    connection.client.close()
    assert connection.serve() is None
    assert connection.log_lines() == []
