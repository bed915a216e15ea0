"""The figures: each function takes one of one running server, or returns a function that does."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.events import logged_per_second
from benchmarks.load import AT_ONCE
from benchmarks.processes import (
    MeasureError,
    damon_us,
    page_faults_of,
    private_kib,
    system_kib,
)
from benchmarks.servers import CROWD, Handlers, configure_tetrad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.load import Held, Load
    from benchmarks.measure import Sample
    from benchmarks.servers import Instance

HANDLERS_WEIGHED = 20
"""Handlers whose private memory is read; the figure is their median."""
STAFF = 10
"""Processes that a server may have come up with meanwhile, besides its handlers."""
SETTLE_SECONDS = 0.5
"""Before memory is read: a handler may put off work until its client keeps it waiting."""
WATCHED_SECONDS = 10
"""For as long the kernel is watched that watches the memory: it does so in turns of 5 s."""
RELOADS_PER_SECOND = 2


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: the full suite, or a quick look that proves only that it runs."""

    rounds: int
    sessions: int
    seconds: int
    round_trips: int
    memory_crowd: int
    idle_crowd: int
    full_crowd: int
    logged_sessions: int


FULL = Scale(
    rounds=7,
    sessions=2_000,
    seconds=4,
    round_trips=20_000,
    memory_crowd=2_000,
    idle_crowd=5_000,
    full_crowd=10_000,
    logged_sessions=100_000,
)
QUICK = Scale(
    rounds=1,
    sessions=300,
    seconds=1,
    round_trips=1_000,
    memory_crowd=50,
    idle_crowd=100,
    full_crowd=200,
    logged_sessions=2_000,
)


def sessions(scale: Scale) -> Sample:
    """Sessions a second: connect, `time`, `quit`, close."""
    return lambda load, server: load.sessions_per_second(server.port, scale.sessions, scale.seconds)


def page_faults(scale: Scale) -> Sample:
    """Page faults that a session costs, in the one that accepts and in the handler."""

    def sample(load: Load, server: Instance) -> float:
        pid, count = server.leader.pid, scale.sessions // 4
        return load.faults_per_session(server.port, pid, count)

    return sample


def faults_apart(scale: Scale) -> Sample:
    """Page faults of the one that accepts, for each client that comes alone."""

    def sample(load: Load, server: Instance) -> float:
        pid, count = server.leader.pid, scale.sessions // 4
        before = page_faults_of(pid)
        load.serve_apart(server.port, count)
        return (page_faults_of(pid) - before) / count

    return sample


def effort(scale: Scale) -> Sample:
    """Microseconds that a session takes of all processors together."""
    return lambda load, server: load.busy_us_per_session(server.port, scale.sessions)


def first_answer(rate: int, scale: Scale) -> Sample:
    """Milliseconds from connect() to the first answer's last byte, at a rate of new clients."""
    return lambda load, server: load.first_answer_ms(server.port, rate, scale.seconds)["p50"]


def round_trip(scale: Scale) -> Sample:
    """Microseconds from a command to its answer within a session."""
    return lambda load, server: load.round_trip_us(server.port, scale.round_trips)


def pipelined(scale: Scale) -> Sample:
    """Commands a second in one session."""
    return lambda load, server: load.commands_per_second(server.port, scale.round_trips // 10)


@contextmanager
def crowd(load: Load, server: Instance, clients: int, at_once: int = AT_ONCE) -> Iterator[Held]:
    """Hold clients, let them go, and wait until their handlers no longer disturb anybody."""
    before = len(server.children())
    with load.holding(server.port, clients, at_once) as held:
        yield held
        held.release()
    server.wait_for_children(before + STAFF)


def handler_memory(at_once: int = AT_ONCE) -> Sample:
    """KiB that only the handler of a client has, which was answered once and waits."""

    def sample(load: Load, server: Instance) -> float:
        before = server.children()
        with crowd(load, server, HANDLERS_WEIGHED, at_once):
            handlers = server.children() - before
            if len(handlers) < HANDLERS_WEIGHED:
                raise MeasureError(f"{HANDLERS_WEIGHED} clients share {len(handlers)} processes")
            time.sleep(SETTLE_SECONDS)
            return median(private_kib(pid) for pid in handlers)

    return sample


def client_memory(clients: int) -> Sample:
    """KiB that the system spends on each client held, both ends of the connection included."""

    def sample(load: Load, server: Instance) -> float:
        before = system_kib()
        with crowd(load, server, clients):
            time.sleep(SETTLE_SECONDS)
            return (system_kib() - before) / clients

    return sample


def held_and_answered(clients: int) -> Sample:
    """Clients that are answered again after all were in at once, a process each."""

    def sample(load: Load, server: Instance) -> float:
        with crowd(load, server, clients) as held:
            if (handlers := len(server.children())) < clients:
                raise MeasureError(f"{clients} clients share {handlers} processes")
        return held.answered_again

    return sample


def rate_kept(clients: int, scale: Scale) -> Sample:
    """Sessions a second with so many clients held, as a share of those with none."""
    rate = sessions(scale)

    def sample(load: Load, server: Instance) -> float:
        alone = rate(load, server)
        with crowd(load, server, clients):
            return rate(load, server) / alone

    return sample


def effort_kept(clients: int, scale: Scale) -> Sample:
    """What a session costs with none held, as a share of that with so many, DAMON's time left out.

    The kernel's DAMON looks at the memory of those who are held while sessions run beside them:
    this is `rate_kept` of a machine where nobody does.
    """

    def cost(load: Load, server: Instance) -> float:
        before = damon_us()
        busy = load.busy_us_per_session(server.port, scale.sessions)
        return busy - (damon_us() - before) / scale.sessions

    def sample(load: Load, server: Instance) -> float:
        alone = cost(load, server)
        with crowd(load, server, clients):
            return alone / cost(load, server)

    return sample


def watched(clients: int) -> Sample:
    """Per cent of a processor that the kernel's DAMON takes while so many clients are held."""

    def sample(load: Load, server: Instance) -> float:
        with crowd(load, server, clients):
            began, before = time.monotonic(), damon_us()
            time.sleep(WATCHED_SECONDS)
            return (damon_us() - before) / (time.monotonic() - began) / 10_000

    return sample


def start(_load: Load, server: Instance) -> float:
    """Milliseconds from the start of the program until its first answer."""
    return server.restart()


def slowest_under_reload(scale: Scale) -> Sample:
    """Milliseconds of the slowest first answer, at 200 new clients a second, during reloads."""

    def sample(load: Load, server: Instance) -> float:
        log = server.site.folder / "tetrad.log"
        before = log.stat().st_size
        done = threading.Event()
        reloader = threading.Thread(target=_reload_until, args=(done, server))
        reloader.start()
        try:
            slowest = load.first_answer_ms(server.port, 200, scale.seconds)["max"]
        finally:
            done.set()
            reloader.join()
        said = log.read_text()[before:]
        if "server.reload_failed" in said or "server.reloaded" not in said:
            raise MeasureError("the reloads failed")
        return slowest

    return sample


def events_logged(scale: Scale) -> Sample:
    """Events a second that reach the log, when the logger has a processor and all it can take."""

    def sample(_load: Load, server: Instance) -> float:
        logger = server.child_titled("tetrad: logger")
        log = server.site.folder / "tetrad.log"
        return logged_per_second(server.leader.pid, logger, log, scale.logged_sessions)

    return sample


def _reload_until(done: threading.Event, server: Instance) -> None:
    """Change the configuration a little each time: a reload of the same one may do less."""
    clients = CROWD
    while not done.wait(1 / RELOADS_PER_SECOND):
        clients += 1
        configure_tetrad(server.site, Handlers(), clients)
        server.leader.send_signal(signal.SIGHUP)
