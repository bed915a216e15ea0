"""The event pipe: complete lines in atomic writes, and an exact count of lost events."""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.ipc import log_protocol
from tetrad.ipc.log_protocol import LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Pipe:
    """A pipe in packet mode, which returns each write separately."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reads)
        os.close(self.writes)

    def fill(self) -> None:
        """Fill the pipe."""
        fcntl.fcntl(self.writes, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
        os.write(self.writes, b"\n")

    def empty(self) -> None:
        """Empty the pipe, and give it its usual capacity."""
        self.packets()
        fcntl.fcntl(self.writes, fcntl.F_SETPIPE_SZ, 1 << 16)

    def packets(self) -> list[bytes]:
        """Read the writes in the pipe, one item for each."""
        packets = []
        while select.select([self.reads], [], [], 0)[0]:
            packets.append(os.read(self.reads, 1 << 20))
        return packets

    def lines(self) -> list[dict[str, Any]]:
        """Read the events and orders in the pipe; each must be complete."""
        return [line for packet in self.packets() for line in read(packet)]


def read(packet: bytes) -> list[dict[str, Any]]:
    """Return the events and orders of a write, with the fields of its context line."""
    assert packet.endswith(b"\n")
    first, *lines = packet.split(b"\n")[:-1]
    context = json.loads(first.removeprefix(b"\x1e") or b"{}")
    return [_parsed(context, line) for line in lines]


def _parsed(context: dict[str, Any], line: bytes) -> dict[str, Any]:
    moment, level, event, fields = line.split(b" ", 3)
    if level == b"order":
        return {"order": event.decode(), **json.loads(fields)}
    head = {"time": int(moment), "level": level.decode(), "event": event.decode()}
    return {**head, **context, **json.loads(fields)}


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a pipe."""
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def log(pipe: Pipe) -> LogWriter:
    """Return a log writer without a timeout, as the master has."""
    return LogWriter(pipe.writes, "info")


def names(lines: list[dict[str, Any]]) -> list[str]:
    """Return the names of events."""
    return [line["event"] for line in lines]


def test_the_names_of_events_are_what_operators_search_for() -> None:
    """The names are fixed: scripts and dashboards depend on them."""
    assert [log_protocol.SERVER_STARTED, log_protocol.SERVER_LISTENING] == [
        "server.started",
        "server.listening",
    ]
    assert [log_protocol.SERVER_STOPPING, log_protocol.SERVER_STOPPED] == [
        "server.stopping",
        "server.stopped",
    ]
    assert log_protocol.SERVER_RELOADED == "server.reloaded"
    assert log_protocol.SERVER_RELOAD_FAILED == "server.reload_failed"
    assert [log_protocol.CLIENT_CONNECTED, log_protocol.CLIENT_COMMAND] == [
        "client.connected",
        "client.command",
    ]
    assert [log_protocol.CLIENT_INVALID, log_protocol.CLIENT_REFUSED] == [
        "client.invalid",
        "client.refused",
    ]
    assert log_protocol.CLIENT_DISCONNECTED == "client.disconnected"
    assert [log_protocol.HANDLER_LOST, log_protocol.LOG_LOST] == ["handler.lost", "log.lost"]
    assert log_protocol.LOG_REOPENED == "log.reopened"


def test_levels_are_in_order() -> None:
    """The numbers are those of the logging module."""
    assert log_protocol.LEVELS == {"debug": 10, "info": 20, "warning": 30, "error": 40}


def test_an_event_has_time_level_name_pid_and_fields(pipe: Pipe, log: LogWriter) -> None:
    """The time is in nanoseconds; the fields of the event follow those of the context."""
    before = time.time_ns()
    log.event("warning", log_protocol.CLIENT_INVALID, command='"\n', size=4)
    log.flush()
    (line,) = pipe.lines()
    assert before <= line.pop("time") <= time.time_ns()
    assert list(line.items()) == [
        ("level", "warning"),
        ("event", "client.invalid"),
        ("pid", os.getpid()),
        ("command", '"\n'),
        ("size", 4),
    ]


def test_every_event_has_the_fields_of_the_context(pipe: Pipe, log: LogWriter) -> None:
    """A new context replaces the previous one."""
    log.set_context(b'"client":"192.0.2.1:5","connection":"1"')
    log.event("info", log_protocol.CLIENT_CONNECTED)
    log.set_context(b'"client":"192.0.2.1:6"')
    log.event("info", log_protocol.CLIENT_CONNECTED)
    log.flush()
    first, second = pipe.lines()
    assert (first["client"], first["connection"]) == ("192.0.2.1:5", "1")
    assert (second["client"], "connection" in second) == ("192.0.2.1:6", False)
    assert first["pid"] == second["pid"] == os.getpid()


@pytest.mark.parametrize("minimum", log_protocol.LEVELS)
def test_events_below_the_level_are_not_sent(pipe: Pipe, minimum: str) -> None:
    """Events of the level and above are sent."""
    log = LogWriter(pipe.writes, minimum)
    for level in log_protocol.LEVELS:
        log.event(level, level)
    log.flush()
    levels = list(log_protocol.LEVELS)
    assert names(pipe.lines()) == levels[levels.index(minimum) :]
    assert log.level == log_protocol.LEVELS[minimum]


def test_the_level_can_change(pipe: Pipe, log: LogWriter) -> None:
    """After a reload, the new level applies."""
    log.set_level("error")
    log.event("info", log_protocol.CLIENT_CONNECTED)
    log.event("error", log_protocol.HANDLER_LOST)
    log.flush()
    assert names(pipe.lines()) == ["handler.lost"]


def test_nothing_is_written_before_a_flush(pipe: Pipe, log: LogWriter) -> None:
    """Events are collected, and written together once."""
    log.flush()
    log.event("info", "one")
    log.event("info", "two")
    assert pipe.packets() == []
    log.flush()
    log.flush()
    (packet,) = pipe.packets()
    assert names(read(packet)) == ["one", "two"]


@given(sizes=st.lists(st.integers(0, 5000), max_size=20))
def test_no_write_is_larger_than_pipe_buf(sizes: list[int]) -> None:
    """Events of any length are complete lines in writes of at most PIPE_BUF bytes."""
    pipe = Pipe()
    log = LogWriter(pipe.writes, "info")
    for number, size in enumerate(sizes):
        log.event("info", "event", number=number, text="x" * size)
    log.flush()
    packets = pipe.packets()
    pipe.close()
    assert all(len(packet) <= select.PIPE_BUF and packet.endswith(b"\n") for packet in packets)
    lines = [line for packet in packets for line in read(packet)]
    assert [line["number"] for line in lines] == list(range(len(sizes)))


def test_a_write_is_filled_to_the_last_byte(pipe: Pipe, log: LogWriter) -> None:
    """Events are written together if they fit in one write."""
    log.event("info", "one")
    log.event("info", "two", text="")
    log.flush()
    room = select.PIPE_BUF - len(pipe.packets()[0])
    for size, writes in ((room, 1), (room + 1, 2)):
        log.event("info", "one")
        log.event("info", "two", text="x" * size)
        log.flush()
        packets = pipe.packets()
        assert len(packets) == writes
        lines = [line for packet in packets for line in read(packet)]
        assert [len(line.get("text", "")) for line in lines] == [0, size]


def test_an_event_that_does_not_fit_is_shortened(pipe: Pipe, log: LogWriter) -> None:
    """Long texts and lists are cut, numbers are kept."""
    errors = ["short", "y" * 401, *"abcdefgh"]
    log.event("error", "event", text="x" * 4096, errors=errors, fits="z" * 400, count=10)
    log.flush()
    (line,) = pipe.lines()
    assert line["text"] == "x" * 400 + "..."
    assert line["errors"] == ["short", "y" * 400 + "...", *"abcd", "and 4 more"]
    assert (line["fits"], line["count"]) == ("z" * 400, 10)


def test_an_event_that_fits_exactly_is_not_shortened(pipe: Pipe, log: LogWriter) -> None:
    """An event of PIPE_BUF bytes is complete, one with a byte more is cut."""
    log.event("info", "event", text="")
    log.flush()
    room = select.PIPE_BUF - len(pipe.packets()[0])
    for size in (room, room + 1):
        log.event("info", "event", text="x" * size)
        log.flush()
    assert [len(line["text"]) for line in pipe.lines()] == [room, 403]


def test_a_shortened_event_that_fits_keeps_its_fields(pipe: Pipe, log: LogWriter) -> None:
    """A field is left out only if cutting was not enough, even by one byte."""
    long = {f"text{n}": "x" * 500 for n in range(9)}
    log.event("info", "event", **long, rest="")
    log.flush()
    room = select.PIPE_BUF - len(pipe.packets()[0])
    for size in (room, room + 1):
        log.event("info", "event", **long, rest="x" * size)
        log.flush()
    assert [len(line.get("rest", "")) for line in pipe.lines()] == [room, 0]


def test_a_short_list_is_kept(pipe: Pipe, log: LogWriter) -> None:
    """Six items are kept when texts are cut."""
    log.event("error", "event", text="x" * 4096, errors=list("abcdef"))
    log.flush()
    assert pipe.lines()[0]["errors"] == list("abcdef")


def test_a_long_mapping_keeps_its_first_items(pipe: Pipe, log: LogWriter) -> None:
    """The log has some of many changes, and the number of the others."""
    changes = {"access.deny": "x" * 9999, **{f"key{n}": "1 -> 2" for n in range(7)}}
    log.event("info", "event", changes=changes)
    log.flush()
    (line,) = pipe.lines()
    kept = {f"key{n}": "1 -> 2" for n in range(5)}
    assert line["changes"] == {"access.deny": "x" * 400 + "...", **kept, "...": "and 2 more"}


def test_fields_that_do_not_fit_are_left_out(pipe: Pipe, log: LogWriter) -> None:
    """An event that is still too long is written without some fields."""
    log.event("error", "event", **{f"field{n}": "x" * 400 for n in range(20)}, last=1)
    log.flush()
    (line,) = pipe.lines()
    assert set(line) == {"time", "level", "event", "pid", *(f"field{n}" for n in range(9)), "last"}


def test_json_fields_that_do_not_fit_are_left_out(pipe: Pipe, log: LogWriter) -> None:
    """Fields that the caller passes as JSON are all left out if they are too long."""
    log.event("info", "event", text="")
    log.flush()
    room = select.PIPE_BUF - len(pipe.packets()[0])
    for size in (room, room + 1):
        log.event_json("info", "event", f'"text":"{"x" * size}"')
        log.flush()
    assert [len(line.get("text", "")) for line in pipe.lines()] == [room, 0]


def test_bytes_that_are_not_utf_8_are_escaped(pipe: Pipe, log: LogWriter) -> None:
    """A JSON parser returns the file name."""
    log.event("info", "event", config="\udcff.yaml")
    log.flush()
    assert pipe.lines()[0]["config"] == "\udcff.yaml"


def test_an_order_keeps_its_place_among_events(pipe: Pipe) -> None:
    """Orders are written in order with events, and at every level."""
    log = LogWriter(pipe.writes, "error")
    log.event("error", "before")
    log.enqueue_reliable(
        log_protocol.LOGGER_ORDER, log_protocol.LOGGER_CONFIGURE, level="debug", file=None
    )
    log.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_REOPEN)
    log.event("error", "after")
    log.flush()
    before, configure, reopen, after = pipe.lines()
    assert configure == {"order": "logger.configure", "level": "debug", "file": None}
    assert reopen == {"order": "logger.reopen"}
    assert names([before, after]) == ["before", "after"]


def test_an_order_waits_for_room_in_the_pipe(pipe: Pipe, log: LogWriter) -> None:
    """It is not lost: each flush tries again, and it is written once."""
    pipe.fill()
    for level in ("debug", "error"):
        log.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_CONFIGURE, level=level)
    log.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_REOPEN)
    assert (log.has_backlog, log.lost) == (True, 0)
    pipe.empty()
    log.flush()
    log.flush()
    assert not log.has_backlog
    assert pipe.lines() == [
        {"order": "logger.configure", "level": "error"},
        {"order": "logger.reopen"},
    ]


def test_each_write_begins_with_a_record_separator(pipe: Pipe, log: LogWriter) -> None:
    """It occurs nowhere else, so a new logger finds the beginning of the next write."""
    log.event("info", "event", text="\x1e{}\n\x1e")
    log.flush()
    (packet,) = pipe.packets()
    assert (packet[:1], packet.count(b"\x1e")) == (b"\x1e", 1)


def test_lost_events_are_counted_and_reported(pipe: Pipe, log: LogWriter) -> None:
    """The report is written when there is room, before the next event."""
    pipe.fill()
    for _ in range(3):
        log.event("info", "event")
    log.flush()
    assert log.lost == 3
    pipe.empty()
    log.event("info", "next")
    log.flush()
    report, _ = lines = pipe.lines()
    assert names(lines) == ["log.lost", "next"]
    assert (report["level"], report["count"], report["pid"]) == ("error", 3, os.getpid())
    assert log.lost == 0


def test_losses_are_reported_without_further_events(pipe: Pipe, log: LogWriter) -> None:
    """A flush without events reports losses once."""
    log.lost = 5
    log.flush()
    log.flush()
    (report,) = pipe.lines()
    assert report["count"] == 5


def test_losses_add_up_while_there_is_no_room(pipe: Pipe, log: LogWriter) -> None:
    """A report that does not fit loses no count."""
    pipe.fill()
    for _ in range(2):
        log.event("info", "event")
        log.flush()
    assert log.lost == 2


def test_a_report_of_losses_has_the_context(pipe: Pipe, log: LogWriter) -> None:
    """It names the client whose events a handler lost."""
    log.set_context(b'"client":"192.0.2.1:5"')
    log.lost = 1
    log.flush()
    assert pipe.lines()[0]["client"] == "192.0.2.1:5"


def test_another_process_can_report_losses(pipe: Pipe, log: LogWriter) -> None:
    """A count that was taken is not reported again."""
    log.lost = 4
    assert log.take_lost() == 4
    log.flush()
    assert (log.take_lost(), pipe.lines()) == (0, [])


def test_all_losses_ever_are_counted(log: LogWriter) -> None:
    """The total includes losses that were reported or taken."""
    log.count_lost(2)
    log.flush()
    log.count_lost(3)
    assert (log.lost, log.take_lost()) == (3, 3)
    assert (log.lost, log.lost_total) == (0, 5)


def test_events_without_a_reader_are_lost() -> None:
    """If the pipe has no reader, events are counted as lost and nothing is raised."""
    reads, writes = os.pipe()
    os.close(reads)
    log = LogWriter(writes, "info", timeout=60.0)
    log.event("info", "event")
    log.flush()
    os.close(writes)
    assert log.lost == 1


def polling(monkeypatch: pytest.MonkeyPatch, while_waiting: Callable[[], object]) -> list[float]:
    """Replace poll(2): call `while_waiting`, and add the timeout in seconds to the result."""
    waits: list[float] = []

    class Poll:
        mask = 0

        def register(self, _fd: int, mask: int) -> None:
            self.mask = mask

        def poll(self, milliseconds: float) -> None:
            assert self.mask == select.POLLOUT
            waits.append(milliseconds / 1000)
            while_waiting()

    monkeypatch.setattr(select, "poll", Poll)
    return waits


def test_a_handler_waits_for_room_in_the_pipe(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a timeout, a flush waits until the logger has read from the pipe."""
    pipe.fill()
    waits = polling(monkeypatch, pipe.packets)
    log = LogWriter(pipe.writes, "info", timeout=60.0)
    log.event("info", "event")
    log.flush()
    assert names(pipe.lines()) == ["event"]
    assert log.lost == 0
    assert waits == [pytest.approx(60.0, abs=10.0)]


def test_a_handler_waits_once_for_a_logger_that_does_not_read(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first of several failures in a row waits, to limit the delay of clients."""
    pipe.fill()
    waits = polling(monkeypatch, lambda: None)
    log = LogWriter(pipe.writes, "info", timeout=0.01)
    for _ in range(3):
        log.event("info", "event")
        log.flush()
        waits.append(-1.0)
    assert log.lost == 3
    assert waits[0] > 0
    assert waits[-3:] == [-1.0] * 3


def test_a_handler_waits_again_after_a_successful_write(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write, the next one that fails waits."""
    pipe.fill()
    log = LogWriter(pipe.writes, "info", timeout=0.01)
    log.event("info", "lost")
    log.flush()
    pipe.packets()
    log.take_lost()
    log.event("info", "written")
    log.flush()
    waits = polling(monkeypatch, pipe.packets)
    log.timeout = 60.0
    log.event("info", "waits")
    log.flush()
    assert (len(waits), log.lost) == (1, 0)


def test_unreported_losses_are_saved_for_the_next_version(pipe: Pipe, log: LogWriter) -> None:
    """Counts and losses of unknown size, but no orders: the next version replaces the logger."""
    pipe.fill()
    log.enqueue_reliable("error", log_protocol.LOG_LOST, count=None)
    log.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_REOPEN)
    log.count_lost(3)
    successor = LogWriter(pipe.writes, "info")
    successor.restore_state(log.save_state())
    pipe.empty()
    successor.flush()
    assert [(line["event"], line["count"]) for line in pipe.lines()] == [
        ("log.lost", None),
        ("log.lost", 3),
    ]
    assert (successor.lost, successor.lost_total) == (0, 3)
