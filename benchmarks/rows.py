"""The table: what is measured on whom, and what tetrad has to reach. A new row is yielded below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import samples
from benchmarks.measure import Row, at_least, at_most
from benchmarks.servers import BARE, EQUIPPED, PHP, PYTHON, SOCAT, TCPSERVER, XINETD, C, Handlers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.samples import Scale


def rows(scale: Scale) -> tuple[Row, ...]:
    """Return the rows, in the order of the table."""
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
        "sessions/s: connect, `time`, `quit`, close; 32 at once, a fresh fork each",
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
        "page faults a session, in the one that accepts and in the handler",
        "faults",
        samples.page_faults(scale),
        (),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
        rounds=3,
    )
    yield Row(
        "faults-apart",
        "page faults of the one that accepts, for each client that comes alone",
        "faults",
        samples.faults_apart(scale),
        (),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
        rounds=3,
    )
    yield Row(
        "effort",
        "time that all processors spend on a session, load generator and logger included",
        "µs",
        samples.effort(scale),
        (),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
    )
    yield Row(
        "reuse",
        "the same with `clients_each: 1000`",
        "/s",
        samples.sessions(scale),
        (at_least(1.4, C),),
        peers=(C,),
        handlers=Handlers(clients_each=1000),
    )
    yield Row(
        "rate-kept",
        f"sessions/s with {scale.idle_crowd:,} clients held, against none held",
        "of it",
        samples.rate_kept(scale.idle_crowd, scale),
        (at_least(0.7),),
        peers=(C, BARE, EQUIPPED),
        rounds=3,
    )
    yield Row(
        "effort-kept",
        f"what a session costs with none held, against {scale.idle_crowd:,}, DAMON left out",
        "of it",
        samples.effort_kept(scale.idle_crowd, scale),
        (),
        peers=(C, BARE, EQUIPPED),
        rounds=3,
    )
    yield Row(
        "watched",
        f"of a processor, by the kernel's DAMON, with {scale.idle_crowd:,} clients held",
        "%",
        samples.watched(scale.idle_crowd),
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
        "one session: `time` and its answer",
        "µs",
        samples.round_trip(scale),
        (at_most(1, C),),
        peers=(C,),
    )
    yield Row(
        "pipeline",
        "one session: commands/s, 64 sent at a time",
        "/s",
        samples.pipelined(scale),
        (at_least(1, C),),
        peers=(C,),
    )


def _memory(scale: Scale) -> Iterator[Row]:
    yield Row(
        "handler-memory",
        "private memory of a handler that answered once and waits",
        "KiB",
        samples.handler_memory(),
        (at_most(300),),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
        rounds=3,
    )
    yield Row(
        "handler-memory-apart",
        "the same, where clients come one by one",
        "KiB",
        samples.handler_memory(at_once=1),
        (),
        peers=(C, BARE, EQUIPPED, PYTHON, PHP),
        rounds=3,
    )
    yield Row(
        "client-memory",
        f"system memory per client, {scale.memory_crowd:,} held",
        "KiB",
        samples.client_memory(scale.memory_crowd),
        (at_most(420),),
        peers=(C, BARE, EQUIPPED),
        rounds=3,
    )
    yield Row(
        "held",
        f"clients answered again after {scale.full_crowd:,} were held at once, a process each",
        "clients",
        samples.held_and_answered(scale.full_crowd),
        (at_least(scale.full_crowd),),
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
        "slowest first answer while reloading twice a second, 200 new clients/s",
        "ms",
        samples.slowest_under_reload(scale),
        (at_most(50),),
        rounds=3,
    )
    yield Row(
        "logger",
        "events/s that the logger writes on one processor, of all those sent",
        "/s",
        samples.events_logged(scale),
        (at_least(100_000),),
    )
