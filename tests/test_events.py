"""Events: whole lines in whole writes, and an honest count of what found no room."""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.ipc import log_protocol
from tetrad.ipc.log_protocol import LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")


class Pipe:
    """A pipe that keeps writes apart, so that each can be seen."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reads)
        os.close(self.writes)

    def fill(self) -> None:
        """Leave no room."""
        fcntl.fcntl(self.writes, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
        os.write(self.writes, b"\n")

    def packets(self) -> list[bytes]:
        """Take what was written, one item a write."""
        packets = []
        while select.select([self.reads], [], [], 0)[0]:
            packets.append(os.read(self.reads, 1 << 20))
        return packets

    def lines(self) -> list[dict[str, Any]]:
        """Take the events and orders that were written; every one of them must be whole."""
        return [line for packet in self.packets() for line in read(packet)]


def read(packet: bytes) -> list[dict[str, Any]]:
    """Read a write: what its first line says, and then what happened."""
    assert packet.endswith(b"\n")
    first, *lines = packet.split(b"\n")[:-1]
    speaker = json.loads(first.removeprefix(b"\x1e") or b"{}")
    return [_parsed(speaker, line) for line in lines]


def _parsed(speaker: dict[str, Any], line: bytes) -> dict[str, Any]:
    moment, level, event, fields = line.split(b" ", 3)
    if level == b"order":
        return {"order": event.decode(), **json.loads(fields)}
    head = {"time": int(moment), "level": level.decode(), "event": event.decode()}
    return {**head, **speaker, **json.loads(fields)}


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe, closed in the end."""
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def journal(pipe: Pipe) -> LogWriter:
    """A journal that has no patience, as the master's."""
    return LogWriter(pipe.writes, "info")


def names(lines: list[dict[str, Any]]) -> list[str]:
    """Return the names of events."""
    return [line["event"] for line in lines]


def test_the_names_of_events_are_what_operators_search_for() -> None:
    """The vocabulary is fixed: scripts and dashboards depend on it."""
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
    """The levels are those of the logging that the logger is made with."""
    assert log_protocol.LEVELS == {"debug": 10, "info": 20, "warning": 30, "error": 40}


def test_an_event_has_time_level_name_pid_and_fields(pipe: Pipe, journal: LogWriter) -> None:
    """An event is a line of JSON, its time in nanoseconds, its own fields behind the common."""
    before = time.time_ns()
    journal.event("warning", log_protocol.CLIENT_INVALID, command='"\n', size=4)
    journal.flush()
    (line,) = pipe.lines()
    assert before <= line.pop("time") <= time.time_ns()
    assert list(line.items()) == [
        ("level", "warning"),
        ("event", "client.invalid"),
        ("pid", os.getpid()),
        ("command", '"\n'),
        ("size", 4),
    ]


def test_every_event_of_a_client_says_whose_it_is(pipe: Pipe, journal: LogWriter) -> None:
    """A context stands in every event from then on, and a new one takes its place."""
    journal.set_context(b'"client":"192.0.2.1:5","connection":"1"')
    journal.event("info", log_protocol.CLIENT_CONNECTED)
    journal.set_context(b'"client":"192.0.2.1:6"')
    journal.event("info", log_protocol.CLIENT_CONNECTED)
    journal.flush()
    first, second = pipe.lines()
    assert (first["client"], first["connection"]) == ("192.0.2.1:5", "1")
    assert (second["client"], "connection" in second) == ("192.0.2.1:6", False)
    assert first["pid"] == second["pid"] == os.getpid()


@pytest.mark.parametrize("least", log_protocol.LEVELS)
def test_events_below_the_level_are_not_sent(pipe: Pipe, least: str) -> None:
    """An event of the least level is sent, and one below it is not even gathered."""
    journal = LogWriter(pipe.writes, least)
    for level in log_protocol.LEVELS:
        journal.event(level, level)
    journal.flush()
    assert (
        names(pipe.lines()) == list(log_protocol.LEVELS)[list(log_protocol.LEVELS).index(least) :]
    )
    assert journal.level == log_protocol.LEVELS[least]


def test_the_level_can_change(pipe: Pipe, journal: LogWriter) -> None:
    """After a reload another level counts."""
    journal.set_level("error")
    journal.event("info", log_protocol.CLIENT_CONNECTED)
    journal.event("error", log_protocol.HANDLER_LOST)
    journal.flush()
    assert names(pipe.lines()) == ["handler.lost"]


def test_nothing_is_written_before_a_flush(pipe: Pipe, journal: LogWriter) -> None:
    """Events are gathered, leave together in one write, and leave once."""
    journal.flush()
    journal.event("info", "one")
    journal.event("info", "two")
    assert pipe.packets() == []
    journal.flush()
    journal.flush()
    (packet,) = pipe.packets()
    assert names(read(packet)) == ["one", "two"]


@given(sizes=st.lists(st.integers(0, 5000), max_size=20))
def test_no_write_is_larger_than_a_pipe_takes_whole(sizes: list[int]) -> None:
    """However long events are, each write has whole lines and at most PIPE_BUF bytes."""
    pipe = Pipe()
    journal = LogWriter(pipe.writes, "info")
    for number, size in enumerate(sizes):
        journal.event("info", "event", number=number, text="x" * size)
    journal.flush()
    packets = pipe.packets()
    pipe.close()
    assert all(len(packet) <= select.PIPE_BUF and packet.endswith(b"\n") for packet in packets)
    lines = [line for packet in packets for line in read(packet)]
    assert [line["number"] for line in lines] == list(range(len(sizes)))


def test_a_write_is_filled_to_the_last_byte(pipe: Pipe, journal: LogWriter) -> None:
    """Events leave together as long as they fit into one write."""
    journal.event("info", "one")
    journal.event("info", "two", text="")
    journal.flush()
    room = select.PIPE_BUF - len(pipe.packets()[0])
    for size, writes in ((room, 1), (room + 1, 2)):
        journal.event("info", "one")
        journal.event("info", "two", text="x" * size)
        journal.flush()
        packets = pipe.packets()
        assert len(packets) == writes
        lines = [line for packet in packets for line in read(packet)]
        assert [len(line.get("text", "")) for line in lines] == [0, size]


def test_what_does_not_fit_one_write_is_cut(pipe: Pipe, journal: LogWriter) -> None:
    """Long texts lose their ends and long lists their rest, numbers stay."""
    errors = ["short", "y" * 401, *"abcdefgh"]
    journal.event("error", "event", text="x" * 4096, errors=errors, fits="z" * 400, count=10)
    journal.flush()
    (line,) = pipe.lines()
    assert line["text"] == "x" * 400 + "..."
    assert line["errors"] == ["short", "y" * 400 + "...", *"abcd", "and 4 more"]
    assert (line["fits"], line["count"]) == ("z" * 400, 10)


def test_what_just_fits_one_write_is_not_cut(pipe: Pipe, journal: LogWriter) -> None:
    """An event of PIPE_BUF bytes is whole, and one of a byte more is cut."""
    journal.event("info", "event", text="")
    journal.flush()
    room = select.PIPE_BUF - len(pipe.packets()[0])
    for size in (room, room + 1):
        journal.event("info", "event", text="x" * size)
        journal.flush()
    assert [len(line["text"]) for line in pipe.lines()] == [room, 403]


def test_what_fits_one_write_once_it_is_cut_keeps_its_fields(
    pipe: Pipe, journal: LogWriter
) -> None:
    """Fields are left out only where cutting them was not enough, be it by one byte."""
    long = {f"text{n}": "x" * 500 for n in range(9)}
    journal.event("info", "event", **long, rest="")
    journal.flush()
    room = select.PIPE_BUF - len(pipe.packets()[0])
    for size in (room, room + 1):
        journal.event("info", "event", **long, rest="x" * size)
        journal.flush()
    assert [len(line.get("rest", "")) for line in pipe.lines()] == [room, 0]


def test_a_list_that_has_few_items_is_kept(pipe: Pipe, journal: LogWriter) -> None:
    """Of six items none is left out, even where texts are cut."""
    journal.event("error", "event", text="x" * 4096, errors=list("abcdef"))
    journal.flush()
    assert pipe.lines()[0]["errors"] == list("abcdef")


def test_of_a_mapping_the_first_items_are_kept(pipe: Pipe, journal: LogWriter) -> None:
    """Of many changes, some of them long, the log tells some, and how many more there are."""
    changes = {"access.deny": "x" * 9999, **{f"key{n}": "1 -> 2" for n in range(7)}}
    journal.event("info", "event", changes=changes)
    journal.flush()
    (line,) = pipe.lines()
    kept = {f"key{n}": "1 -> 2" for n in range(5)}
    assert line["changes"] == {"access.deny": "x" * 400 + "...", **kept, "...": "and 2 more"}


def test_what_cannot_be_cut_to_fit_is_left_out(pipe: Pipe, journal: LogWriter) -> None:
    """An event that stays too long is told without what does not fit."""
    journal.event("error", "event", **{f"field{n}": "x" * 400 for n in range(20)}, last=1)
    journal.flush()
    (line,) = pipe.lines()
    assert set(line) == {"time", "level", "event", "pid", *(f"field{n}" for n in range(9)), "last"}


def test_nothing_is_told_that_would_be_torn(pipe: Pipe, journal: LogWriter) -> None:
    """Fields that are written as JSON already, and too long, are left out as a whole."""
    journal.event("info", "event", text="")
    journal.flush()
    room = select.PIPE_BUF - len(pipe.packets()[0])
    for size in (room, room + 1):
        journal.event_json("info", "event", f'"text":"{"x" * size}"')
        journal.flush()
    assert [len(line.get("text", "")) for line in pipe.lines()] == [room, 0]


def test_bytes_that_are_no_text_are_still_json(pipe: Pipe, journal: LogWriter) -> None:
    """A file name that is not UTF-8 is escaped."""
    journal.event("info", "event", config="\udcff.yaml")
    journal.flush()
    assert pipe.lines()[0]["config"] == "\udcff.yaml"


def test_an_order_keeps_its_place_among_events(pipe: Pipe) -> None:
    """Orders travel with the events, whatever the level."""
    journal = LogWriter(pipe.writes, "error")
    journal.event("error", "before")
    journal.enqueue_reliable(
        log_protocol.LOGGER_ORDER, log_protocol.LOGGER_CONFIGURE, level="debug", file=None
    )
    journal.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_REOPEN)
    journal.event("error", "behind")
    journal.flush()
    before, configure, reopen, behind = pipe.lines()
    assert configure == {"order": "logger.configure", "level": "debug", "file": None}
    assert reopen == {"order": "logger.reopen"}
    assert names([before, behind]) == ["before", "behind"]


def test_what_must_not_be_lost_waits_for_room(pipe: Pipe, journal: LogWriter) -> None:
    """An order that finds no room is no loss: each flush tries again, and it is sent once."""
    pipe.fill()
    for level in ("debug", "error"):
        journal.enqueue_reliable(
            log_protocol.LOGGER_ORDER, log_protocol.LOGGER_CONFIGURE, level=level
        )
    journal.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_REOPEN)
    assert (journal.has_backlog, journal.lost) == (True, 0)
    pipe.packets()
    fcntl.fcntl(pipe.writes, fcntl.F_SETPIPE_SZ, 1 << 16)
    journal.flush()
    journal.flush()
    assert not journal.has_backlog
    assert pipe.lines() == [
        {"order": "logger.configure", "level": "error"},
        {"order": "logger.reopen"},
    ]


def test_each_write_begins_with_a_mark_that_is_nowhere_else(pipe: Pipe, journal: LogWriter) -> None:
    """Whoever takes over in the middle finds the next beginning, whatever the fields say."""
    journal.event("info", "event", text="\x1e{}\n\x1e")
    journal.flush()
    (packet,) = pipe.packets()
    assert (packet[:1], packet.count(b"\x1e")) == (b"\x1e", 1)


def test_what_finds_no_room_is_counted_and_reported(pipe: Pipe, journal: LogWriter) -> None:
    """Lost events are reported as soon as there is room, ahead of what comes next."""
    pipe.fill()
    for _ in range(3):
        journal.event("info", "event")
    journal.flush()
    assert journal.lost == 3
    pipe.packets()
    fcntl.fcntl(pipe.writes, fcntl.F_SETPIPE_SZ, 1 << 16)
    journal.event("info", "next")
    journal.flush()
    report, _ = lines = pipe.lines()
    assert names(lines) == ["log.lost", "next"]
    assert (report["level"], report["count"], report["pid"]) == ("error", 3, os.getpid())
    assert journal.lost == 0


def test_losses_are_reported_even_when_there_is_nothing_else(
    pipe: Pipe, journal: LogWriter
) -> None:
    """A flush with nothing gathered still reports what was lost, once."""
    journal.lost = 5
    journal.flush()
    journal.flush()
    (report,) = pipe.lines()
    assert report["count"] == 5


def test_losses_add_up_while_there_is_no_room(pipe: Pipe, journal: LogWriter) -> None:
    """A report that finds no room itself loses no count."""
    pipe.fill()
    for _ in range(2):
        journal.event("info", "event")
        journal.flush()
    assert journal.lost == 2


def test_a_report_of_losses_bears_the_client_s_fields(pipe: Pipe, journal: LogWriter) -> None:
    """What a handler lost, it lost for its client."""
    journal.set_context(b'"client":"192.0.2.1:5"')
    journal.lost = 1
    journal.flush()
    assert pipe.lines()[0]["client"] == "192.0.2.1:5"


def test_somebody_else_may_report_losses(pipe: Pipe, journal: LogWriter) -> None:
    """A count that was taken is not reported a second time."""
    journal.lost = 4
    assert journal.take_lost() == 4
    journal.flush()
    assert (journal.take_lost(), pipe.lines()) == (0, [])


def test_all_losses_ever_are_counted(journal: LogWriter) -> None:
    """What was reported, or taken to be reported by another, stays in the sum."""
    journal.count_lost(2)
    journal.flush()
    journal.count_lost(3)
    assert (journal.lost, journal.take_lost()) == (3, 3)
    assert (journal.lost, journal.lost_total) == (0, 5)


def test_a_journal_without_a_reader_loses_events_and_goes_on() -> None:
    """When the logger's pipe is gone altogether, events are lost and nothing is raised."""
    reads, writes = os.pipe()
    os.close(reads)
    journal = LogWriter(writes, "info", patience=60.0)
    journal.event("info", "event")
    journal.flush()
    os.close(writes)
    assert journal.lost == 1


def polling(monkeypatch: pytest.MonkeyPatch, while_waiting: Callable[[], object]) -> list[float]:
    """Have `while_waiting` done whenever the journal waits; return the seconds it waits for."""
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


def test_a_handler_waits_for_room(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """With patience, an event that finds no room waits until the logger has made some."""
    pipe.fill()
    waits = polling(monkeypatch, pipe.packets)
    journal = LogWriter(pipe.writes, "info", patience=60.0)
    journal.event("info", "event")
    journal.flush()
    assert names(pipe.lines()) == ["event"]
    assert journal.lost == 0
    assert waits == [pytest.approx(60.0, abs=10.0)]


def test_a_handler_waits_once_for_a_logger_that_is_stuck(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first of several failures in a row waits, so that no client waits long."""
    pipe.fill()
    waits = polling(monkeypatch, lambda: None)
    journal = LogWriter(pipe.writes, "info", patience=0.01)
    for _ in range(3):
        journal.event("info", "event")
        journal.flush()
        waits.append(-1.0)
    assert journal.lost == 3
    assert waits[0] > 0
    assert waits[-3:] == [-1.0] * 3


def test_a_handler_is_patient_again_once_there_was_room(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an event has found room, the next that does not waits anew."""
    pipe.fill()
    journal = LogWriter(pipe.writes, "info", patience=0.01)
    journal.event("info", "lost")
    journal.flush()
    pipe.packets()
    journal.take_lost()
    journal.event("info", "written")
    journal.flush()
    waits = polling(monkeypatch, pipe.packets)
    journal.timeout = 60.0
    journal.event("info", "waits")
    journal.flush()
    assert (len(waits), journal.lost) == (1, 0)


def test_what_was_not_reported_is_left_to_the_next_version(pipe: Pipe, journal: LogWriter) -> None:
    """Counts, and a loss that nobody could count; but no orders to a logger that is replaced."""
    pipe.fill()
    journal.enqueue_reliable("error", log_protocol.LOG_LOST, count=None)
    journal.enqueue_reliable(log_protocol.LOGGER_ORDER, log_protocol.LOGGER_REOPEN)
    journal.count_lost(3)
    heir = LogWriter(pipe.writes, "info")
    heir.restore_state(journal.save_state())
    pipe.packets()
    fcntl.fcntl(pipe.writes, fcntl.F_SETPIPE_SZ, 1 << 16)
    heir.flush()
    assert [(line["event"], line["count"]) for line in pipe.lines()] == [
        ("log.lost", None),
        ("log.lost", 3),
    ]
    assert (heir.lost, heir.lost_total) == (0, 3)
