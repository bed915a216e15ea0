"""The bytes on the wire, over real sockets."""

from __future__ import annotations

import itertools
import re
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER, ANSWER_BYTES
from tests.support.processes import in_background, stopped

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

pytestmark = pytest.mark.quick

MEGABYTE = 1 << 20
ZONES = {"seou": "Asia/Seoul", "utc_": "UTC", "loca": "local"}
MORE: dict[str, Any] = {
    "listen": [{"port": 0}, {"port": 0, "service": "echo"}],
    "commands": {
        "year": {"clock": "%Y"},
        "bye!": {"close": "so long"},
        **{name: {"clock": "%z;", "timezone": zone} for name, zone in ZONES.items()},
    },
}
"""Commands beside the built-in ones, and a second listener, for the service echo."""

ECHO = 1


def seconds_of(answer: bytes) -> float:
    """Return the time of an answer, in seconds since 1970."""
    return time.mktime(time.strptime(answer.decode(), "%Y/%m/%d %H:%M:%S"))


def commands_logged(daemon: Daemon, connection: str) -> list[str]:
    """Return the commands of a session that has ended, invalid ones as `!name`."""
    daemon.wait_for("client.disconnected", connection=connection)
    marks = {"client.command": "", "client.invalid": "!"}
    lines = daemon.events(connection=connection)
    return [marks[line["event"]] + line["command"] for line in lines if line["event"] in marks]


def conversation(daemon: Daemon, *pieces: bytes) -> tuple[bytes, list[str]]:
    """Send pieces, each read by the server before the next; return answers and logged commands."""
    client = daemon.connect()
    name = client.name
    for piece in pieces:
        client.send_and_wait(piece)
    client.half_close()
    answers = client.read_all()
    connection = daemon.wait_for("client.connected", client=name)["connection"]
    return answers, commands_logged(daemon, connection)


def test_time_is_answered_with_the_local_time(shared_daemon: MakeDaemon) -> None:
    """In 19 bytes, without a terminator."""
    before = int(time.time())
    answers, log = conversation(shared_daemon(), b"time")
    assert ANSWER.fullmatch(answers)
    assert before <= seconds_of(answers) <= time.time()
    assert log == ["time"]


def test_quit_is_answered_and_ends_the_session(shared_daemon: MakeDaemon) -> None:
    """The answer is `quit`."""
    served = shared_daemon()
    assert served.connect().quit() == b"quit"
    line = served.wait_for("client.disconnected")
    assert (line["reason"], line["commands"]) == ("quit", 1)


@pytest.mark.parametrize("separator", [b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\0 \t\r\n\n"])
def test_separators_between_commands_are_skipped(
    shared_daemon: MakeDaemon, separator: bytes
) -> None:
    """Line endings, spaces, tabs and NULs before, between and after commands."""
    text = separator.join([b"", b"time", b"time", b""])
    answers, log = conversation(shared_daemon(), text)
    assert len(answers) == 2 * ANSWER_BYTES
    assert log == ["time", "time"]


def test_commands_are_pipelined(shared_daemon: MakeDaemon) -> None:
    """`timetimequit` gets two times and a quit, in order."""
    answers, log = conversation(shared_daemon(), b"timetimequit")
    assert re.fullmatch(ANSWER.pattern * 2 + b"quit", answers)
    assert log == ["time", "time", "quit"]


def test_a_thousand_commands_in_one_piece_are_all_answered(shared_daemon: MakeDaemon) -> None:
    """Also those that are split where a read of the server ends."""
    client = shared_daemon().connect()
    sender = in_background(lambda: client.send(b"time" * 30001 + b"quit"))
    answers = client.read_all()
    sender.join()
    assert re.fullmatch(b"(%b){30001}quit" % ANSWER.pattern, answers)


@pytest.mark.parametrize("cuts", [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)])
def test_a_command_may_arrive_in_any_pieces(
    shared_daemon: MakeDaemon, cuts: tuple[int, ...]
) -> None:
    """However it is split, it is one command."""
    edges = itertools.pairwise((0, *cuts, 4))
    answers, log = conversation(shared_daemon(), *(b"time"[start:end] for start, end in edges))
    assert ANSWER.fullmatch(answers)
    assert log == ["time"]


def test_a_piece_may_end_one_command_and_begin_another(shared_daemon: MakeDaemon) -> None:
    """Both commands are found."""
    answers, log = conversation(shared_daemon(), b"ti", b"met", b"imequ", b"it")
    assert re.fullmatch(ANSWER.pattern * 2 + b"quit", answers)
    assert log == ["time", "time", "quit"]


def test_an_unknown_line_is_one_invalid_command(shared_daemon: MakeDaemon) -> None:
    r"""`help me\r\n` is the invalid command `help`; the next `time` is answered."""
    answers, log = conversation(shared_daemon(), b"help me\r\n", b"time")
    assert ANSWER.fullmatch(answers)
    assert log == ["!help", "time"]


def test_input_that_arrived_with_an_invalid_command_is_thrown_away(
    shared_daemon: MakeDaemon,
) -> None:
    """A command behind it in the same piece is not answered."""
    answers, log = conversation(shared_daemon(), b"timehelptimequit", b"time")
    assert re.fullmatch(ANSWER.pattern * 2, answers)
    assert log == ["time", "!help", "time"]


def test_all_input_that_arrived_with_an_invalid_command_is_thrown_away(
    shared_daemon: MakeDaemon,
) -> None:
    """Also when it is more than one read returns."""
    served = shared_daemon()
    client = served.served()
    with stopped(served.handlers[0]):
        client.send(b"help" + b"time" * 10000)
    client.send_and_wait(b"")
    assert client.quit() == b"quit"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"x", "x"),
        (b"tix", "tix"),
        (b"TIME", "TIME"),
        (b"timE", "timE"),
        (b'\x01\xff"\\', '\\x01\\xff"\\'),
        (b"\x1b[2J", "\\x1b[2J"),
        ("é€".encode(), "\\xc3\\xa9\\xe2\\x82"),
    ],
)
def test_an_invalid_command_is_logged_at_once(
    shared_daemon: MakeDaemon, sent: bytes, shown: str
) -> None:
    """As soon as the bytes cannot become a command any more; the log shows at most four."""
    served = shared_daemon()
    client = served.connect()
    client.send(sent)
    assert served.wait_for("client.invalid")["command"] == shown
    assert ANSWER.fullmatch(client.ask())


@pytest.mark.parametrize("ending", [b"\r\n", b"\n", b"\r"])
def test_a_line_ending_ends_an_unfinished_command(shared_daemon: MakeDaemon, ending: bytes) -> None:
    """As invalid; the next bytes begin a new command."""
    answers, log = conversation(shared_daemon(), b"ti" + ending, b"me", b"time")
    assert ANSWER.fullmatch(answers)
    assert log == ["!ti", "!me", "time"]


def test_a_line_ending_in_a_later_piece_ends_an_unfinished_command(
    shared_daemon: MakeDaemon,
) -> None:
    """The beginning of the command and its line ending arrive in two pieces."""
    answers, log = conversation(shared_daemon(), b"tim", b"\n", b"time")
    assert ANSWER.fullmatch(answers)
    assert log == ["!tim", "time"]


def test_a_half_closed_client_gets_its_answers(shared_daemon: MakeDaemon) -> None:
    """Before the server closes."""
    served = shared_daemon()
    client = served.connect()
    client.send(b"timetime")
    client.half_close()
    assert re.fullmatch(ANSWER.pattern * 2, client.read_all())
    assert served.wait_for("client.disconnected")["reason"] == "eof"


def test_a_command_unfinished_at_the_end_of_input_is_invalid(shared_daemon: MakeDaemon) -> None:
    """It is logged."""
    answers, log = conversation(shared_daemon(), b"timeti")
    assert ANSWER.fullmatch(answers)
    assert log == ["time", "!ti"]


def test_what_follows_quit_is_ignored(shared_daemon: MakeDaemon) -> None:
    """Commands behind `quit` are neither answered nor logged."""
    answers, log = conversation(shared_daemon(), b"quittimehelp")
    assert answers == b"quit"
    assert log == ["quit"]


def test_quit_followed_by_a_megabyte_is_answered_without_a_reset(shared_daemon: MakeDaemon) -> None:
    """Unread input does not destroy the last answer."""
    client = shared_daemon().connect()
    # With a small buffer, most of the data is still unsent when the server answers.
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
    client.send(b"quit" + bytes(MEGABYTE))
    client.half_close()
    assert client.read_all() == b"quit"


def test_a_client_that_keeps_sending_after_quit_is_disconnected(shared_daemon: MakeDaemon) -> None:
    """The wait for its end is short."""
    served = shared_daemon()
    client = served.connect()
    client.send(b"quit")
    client.send_until_closed(bytes(MEGABYTE))
    assert served.wait_for("client.disconnected")["reason"] == "quit"


def test_a_reset_ends_the_session(shared_daemon: MakeDaemon) -> None:
    """With the reason reset."""
    served = shared_daemon()
    served.served().reset()
    assert served.wait_for("client.disconnected")["reason"] == "reset"


def test_configured_commands_are_added_to_the_built_in_ones(shared_daemon: MakeDaemon) -> None:
    """A clock answers the time in its format; a close answers and closes."""
    answers, log = conversation(shared_daemon(**MORE), b"yeartimebye!")
    assert re.fullmatch(rb"\d{4}" + ANSWER.pattern + b"so long", answers)
    assert log == ["year", "time", "bye!"]


def test_a_built_in_command_is_removed_by_null(shared_daemon: MakeDaemon) -> None:
    """Then it is invalid."""
    answers, log = conversation(shared_daemon(commands={"quit": None}), b"quit", b"time")
    assert ANSWER.fullmatch(answers)
    assert log == ["!quit", "time"]


def test_each_clock_has_its_own_zone(shared_daemon: MakeDaemon) -> None:
    """And does not change the zone of the others."""
    answers, _ = conversation(shared_daemon(**MORE), b"seouutc_locaseou")
    assert answers.decode() == f"+0900;+0000;{time.strftime('%z')};+0900;"


def test_every_byte_is_echoed(shared_daemon: MakeDaemon) -> None:
    """All 256 values come back unchanged."""
    client = shared_daemon(**MORE).connect(ECHO)
    client.send(bytes(range(256)))
    assert client.read(256) == bytes(range(256))


def test_a_megabyte_is_echoed(shared_daemon: MakeDaemon) -> None:
    """More than any buffer holds comes back complete and in order."""
    client = shared_daemon(**MORE).connect(ECHO)
    text = b"".join(b"%07d\n" % number for number in range(MEGABYTE // 8))
    sender = in_background(lambda: client.send(text))
    assert client.read(len(text)) == text
    sender.join()


def test_echo_has_no_commands(shared_daemon: MakeDaemon) -> None:
    """`quit` and `END` are echoed; the session ends when the client closes."""
    served = shared_daemon(**MORE)
    client = served.connect(ECHO)
    client.send(b"quitEND\r\n")
    client.half_close()
    assert client.read_all() == b"quitEND\r\n"
    line = served.wait_for("client.disconnected")
    assert (line["reason"], line["bytes_in"], line["bytes_out"]) == ("eof", 9, 9)
