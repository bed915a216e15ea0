"""The first moments of a session: what ends in them, and what goes on, with nothing forgotten."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from clients import ANSWER
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


PLAN: SessionConfig = {
    "first_command_timeout": None,
    "idle_timeout": None,
    "max_duration": None,
    "send_timeout": None,
}


class Untitled(ProcessTitle):
    """The title of a process that keeps its own."""

    def set(self, text: bytes) -> None:
        """Show nothing."""
        self.text = text


class Meeting:
    """A client and a server that are connected, and a pipe in the place of the logger's.

    The master has all handlers stop, so nobody is waited for.
    """

    def __init__(self, level: str = "info", close: str = "quit", end: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            sockets.set_recv_timeout(listening)
            self.client = socket.create_connection(listening.getsockname())
            self.server, _ = listening.accept()
        self.server.setblocking(True)  # noqa: FBT003 - its only argument
        self._hears, self._tells = os.pipe()
        os.set_blocking(self._hears, False)
        plan: dict[str, Any] = {
            "time": {"kind": "clock", "text": "%Y/%m/%d %H:%M:%S", "timezone": "UTC"},
            "quit": {"kind": "close", "text": close, "timezone": ""},
        }
        self._listens, self._notices = os.pipe()
        os.set_blocking(self._listens, False)
        self._begun: SessionProgress | None = None
        known = commands.make(plan)
        self.journal = log_protocol.LogWriter(self._tells, level)
        self._hold, self._orders = os.pipe()
        os.write(self._orders, b".")
        self.title = Untitled()
        lifeline = ShutdownPipe(self._hold, 0.0, signals=frozenset())
        stay = IdleWait(PLAN, lifeline, self.title, self._go_on)
        self._quick = FastPath(known, end.encode(), self.journal, self._notices, stay)

    def close(self) -> None:
        """Close everything."""
        self.client.close()
        self.server.close()
        os.close(self._hears)
        os.close(self._tells)
        os.close(self._listens)
        os.close(self._notices)
        os.close(self._hold)
        os.close(self._orders)

    def serve(self, *said: bytes) -> SessionProgress | None:
        """Have the client say something, a write each, and serve it."""
        for words in said:
            self.client.sendall(words)
        self._quick.refresh()
        self._begun = None
        self._quick.serve(self.server, ("192.0.2.7:38276", "inet", 0, CONTEXT, "1f-1"), NOTICE)
        return self._begun

    def _go_on(
        self, _socket: object, _client: ClientHandoff, begun: SessionProgress, _notice: bytes
    ) -> bool:
        self._begun = begun
        return True

    def fill_the_log(self) -> None:
        """Leave no room in the pipe."""
        os.set_blocking(self._tells, False)
        try:
            while True:
                os.write(self._tells, bytes(4096))
        except BlockingIOError:
            pass

    def noticed(self) -> bytes:
        """Return what the master would read."""
        try:
            return os.read(self._listens, 65536)
        except BlockingIOError:
            return b""

    def told(self) -> list[str]:
        """Return what the logger would read: who speaks, then a line for each event."""
        try:
            return os.read(self._hears, 65536).decode().split("\n")[:-1]
        except BlockingIOError:
            return []


@pytest.fixture
def meeting(request: pytest.FixtureRequest) -> Iterator[Meeting]:
    """A meeting, closed in the end; the test may say what is different in it."""
    meeting = Meeting(**getattr(request, "param", {}))
    yield meeting
    meeting.close()


def fields_of(line: str) -> tuple[str, dict[str, Any]]:
    """Return an event's name and fields."""
    _, _, event, fields = line.split(" ", 3)
    return event, json.loads(fields)


def test_a_client_that_asks_and_leaves_is_served_whole(meeting: Meeting) -> None:
    """One answer, the goodbye, and one write to the log with all of it."""
    meeting.client.sendall(b"quit")
    meeting.client.shutdown(socket.SHUT_WR)
    assert meeting.serve() is None
    assert meeting.client.recv(9) == b"quit"
    speaker, *lines = meeting.told()
    assert json.loads(speaker.removeprefix("\x1e")) == {
        "pid": os.getpid(),
        "client": "192.0.2.7:38276",
    }
    connected, command, (ended, summary) = map(fields_of, lines)
    assert connected == ("client.connected", {})
    assert command == ("client.command", {"command": "quit"})
    assert 0 <= summary.pop("duration") < 60
    assert (ended, summary) == (
        "client.disconnected",
        {"reason": "quit", "bytes_in": 4, "bytes_out": 4, "commands": 1},
    )


def test_the_master_hears_of_who_is_served_whole(meeting: Meeting) -> None:
    """The notice goes out, once."""
    meeting.client.close()
    meeting.serve()
    assert meeting.noticed() == NOTICE


def test_the_master_does_not_hear_yet_of_who_goes_on(meeting: Meeting) -> None:
    """The notice goes on, too."""
    meeting.serve(b"time")
    assert meeting.noticed() == b""


def test_what_found_no_room_in_the_log_is_told_to_the_master(meeting: Meeting) -> None:
    """A session's two events, when the pipe stays full, are in the count of its notice."""
    meeting.fill_the_log()
    meeting.client.close()
    meeting.serve()
    assert meeting.noticed() == exit_notices.with_lost_count(NOTICE, 2)


def test_a_client_that_leaves_at_once_is_served_whole(meeting: Meeting) -> None:
    """Who comes and goes is told of."""
    meeting.client.close()
    assert meeting.serve() is None
    _, _, ended = meeting.told()
    assert fields_of(ended)[1]["reason"] == "eof"


@pytest.mark.parametrize("said", [b"tim", b"time\r\n", b"timetime", b"help", b"x" * 1000])
def test_anything_but_one_command_goes_on(meeting: Meeting, said: bytes) -> None:
    """What was read and not answered is handed on, and nothing is told yet."""
    begun = meeting.serve(said)
    assert begun is not None
    assert begun.data == said[: len(begun.data)] != b""
    assert (begun.bytes_in, begun.bytes_out, begun.commands) == (len(begun.data), 0, 0)
    assert not begun.is_over
    assert meeting.told() == []


def test_a_client_that_makes_us_wait_goes_on(meeting: Meeting) -> None:
    """It has had its answer, the log and `ps` know of it, and nothing is left to be told."""
    begun = meeting.serve(b"time")
    assert begun is not None
    assert ANSWER.fullmatch(meeting.client.recv(99))
    assert (begun.data, begun.commands, begun.bytes_in, begun.bytes_out) == (b"", 1, 4, 19)
    speaker, *lines = meeting.told()
    assert json.loads(speaker.removeprefix("\x1e"))["client"] == "192.0.2.7:38276"
    told = [fields_of(line) for line in lines]
    assert told == [("client.connected", {}), ("client.command", {"command": "time"})]
    assert begun.told == b""
    assert meeting.title.text == b"handler 192.0.2.7:38276"


def test_a_client_has_its_time_from_where_it_has_us_wait(meeting: Meeting) -> None:
    """From its coming, until it has asked; then from then on."""
    silent, asking = meeting.serve(), meeting.serve(b"time")
    assert silent is not None
    assert asking is not None
    assert silent.last_command is None
    assert asking.last_command is not None
    assert silent.since < asking.since < asking.last_command


def test_what_found_no_room_before_a_wait_is_counted(meeting: Meeting) -> None:
    """The two events of a session that goes on, when the pipe stays full."""
    meeting.fill_the_log()
    assert meeting.serve(b"time") is not None
    assert meeting.journal.take_lost() == 2


def test_a_client_that_quits_and_stays_goes_on(meeting: Meeting) -> None:
    """It has its goodbye; that it has not left is for a session to wait for."""
    begun = meeting.serve(b"quit")
    assert begun is not None
    assert begun.is_over
    assert meeting.client.recv(9) == b"quit"
    assert meeting.client.recv(9) == b""


def test_a_connection_that_is_reset_goes_on_with_its_error(meeting: Meeting) -> None:
    """Why it ended is not lost."""
    meeting.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
    meeting.client.close()
    begun = meeting.serve()
    assert begun is not None
    assert isinstance(begun.error, ConnectionResetError)


@pytest.mark.parametrize("meeting", [{"close": "x" * 257}], indirect=True)
def test_an_answer_that_may_not_fit_is_for_a_session(meeting: Meeting) -> None:
    """A write never blocks here."""
    begun = meeting.serve(b"quit")
    assert begun is not None
    assert (begun.data, begun.bytes_out) == (b"quit", 0)


@pytest.mark.parametrize("meeting", [{"end": "\r\n"}], indirect=True)
def test_an_answer_ends_with_the_terminator(meeting: Meeting) -> None:
    """Prepared answers have it, too, and it is counted."""
    begun = meeting.serve(b"quit")
    assert begun is not None
    assert (meeting.client.recv(9), begun.bytes_out) == (b"quit\r\n", 6)


@pytest.mark.parametrize("meeting", [{"level": "warning"}], indirect=True)
def test_nothing_is_told_below_the_level(meeting: Meeting) -> None:
    """At level warning a client that is served well is not mentioned."""
    begun = meeting.serve(b"time")
    assert begun is not None
    assert begun.told == b""
    assert ANSWER.fullmatch(meeting.client.recv(99))
    meeting.client.close()
    assert meeting.serve() is None
    assert meeting.told() == []
