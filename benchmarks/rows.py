"""The table: what is measured, for which servers, and tetrad's targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import samples
from benchmarks.measure import Row, at_least, at_most
from benchmarks.servers import BARE, EQUIPPED, PHP, PYTHON, SOCAT, TCPSERVER, XINETD, C, Handlers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.samples import Scale


def rows(scale: Scale) -> tuple[Row, ...]:
    """Return the rows in the order of the table."""
    return (
        *_many_sessions(scale),
        *_first_answers(scale),
        *_one_session(scale),
        *_memory(scale),
        *_operation(scale),
    )


def _many_sessions(scale: Scale) -> Iterator[Row]:
    yield Row(
        "sessions",
        "sessions/s: connect, `time`, `quit`, close; 32 at once, one fork each",
        "/s",
        samples.sessions(scale),
        (
            at_least(0.45, C),
            at_least(1.3, XINETD),
            at_least(1.2, TCPSERVER),
            at_least(2, PYTHON),
            at_least(5, PHP),
        ),
        peers=(C, BARE, EQUIPPED, XINETD, TCPSERVER, SOCAT, PYTHON, PHP),
    )
    yield Row(
        "faults",
        "page faults per session, in the accepting process and the handler",
        "faults",
        samples.page_faults(scale),
        (),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
        rounds=3,
    )
    yield Row(
        "faults-apart",
        "page faults per session in the accepting process, one client at a time",
        "faults",
        samples.faults_apart(scale),
        (),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
        rounds=3,
    )
    yield Row(
        "effort",
        "CPU time per session of the whole system, load generator and logger included",
        "µs",
        samples.effort(scale),
        (),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
    )
    yield Row(
        "reuse",
        "sessions/s with `clients_each: 1000`",
        "/s",
        samples.sessions(scale),
        (at_least(1.4, C),),
        peers=(C,),
        handlers=Handlers(clients_each=1000),
    )
    yield Row(
        "rate-kept",
        f"sessions/s with {scale.idle_clients:,} clients held, relative to none held",
        "ratio",
        samples.rate_kept(scale.idle_clients, scale),
        (at_least(0.7),),
        peers=(C, BARE, EQUIPPED),
        rounds=3,
    )
    yield Row(
        "effort-kept",
        f"CPU time per session with none held, relative to {scale.idle_clients:,}; without DAMON",
        "ratio",
        samples.effort_kept(scale.idle_clients, scale),
        (),
        peers=(C, BARE, EQUIPPED),
        rounds=3,
    )
    yield Row(
        "watched",
        f"share of a processor used by the kernel's DAMON, {scale.idle_clients:,} clients held",
        "%",
        samples.watched(scale.idle_clients),
        (),
        peers=(C, BARE, EQUIPPED),
        rounds=3,
    )


def _first_answers(scale: Scale) -> Iterator[Row]:
    for rate in (20, 200):
        yield Row(
            f"first-answer-{rate}",
            f"first answer at {rate} new clients/s, `spare: 8`",
            "ms",
            samples.first_answer(rate, scale),
            (at_most(1.3, C), at_most(0.5, XINETD)),
            peers=(C, XINETD),
            handlers=Handlers(spare=8),
        )


def _one_session(scale: Scale) -> Iterator[Row]:
    yield Row(
        "round-trip",
        "round trip of `time` in one session",
        "µs",
        samples.round_trip(scale),
        (at_most(1, C),),
        peers=(C,),
    )
    yield Row(
        "pipeline",
        "commands/s in one session, 64 sent at once",
        "/s",
        samples.pipeline(scale),
        (at_least(1, C),),
        peers=(C,),
    )


def _memory(scale: Scale) -> Iterator[Row]:
    yield Row(
        "handler-memory",
        "private memory of a handler that waits after one answer",
        "KiB",
        samples.handler_memory(),
        (at_most(300),),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
        rounds=3,
    )
    yield Row(
        "handler-memory-apart",
        "the same, with clients that connect one by one",
        "KiB",
        samples.handler_memory(at_once=1),
        (),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
        rounds=3,
    )
    yield Row(
        "client-memory",
        f"system memory per client, {scale.memory_clients:,} held",
        "KiB",
        samples.client_memory(scale.memory_clients),
        (at_most(420),),
        peers=(C, BARE, EQUIPPED),
        rounds=3,
    )
    yield Row(
        "held",
        f"clients answered after {scale.full_clients:,} were held, one process each",
        "clients",
        samples.held_and_answered(scale.full_clients),
        (at_least(scale.full_clients),),
        peers=(C,),
        rounds=1,
    )


def _operation(scale: Scale) -> Iterator[Row]:
    yield Row(
        "start",
        "start to first answer",
        "ms",
        samples.start,
        (at_most(250),),
        peers=(C, XINETD, TCPSERVER, PYTHON, PHP),
    )
    yield Row(
        "reload",
        "slowest first answer during two reloads/s, 200 new clients/s",
        "ms",
        samples.slowest_under_reload(scale),
        (at_most(50),),
        rounds=3,
    )
    yield Row(
        "logger",
        "events/s that the logger writes on one processor, none lost",
        "/s",
        samples.events_logged(scale),
        (at_least(100_000),),
    )
