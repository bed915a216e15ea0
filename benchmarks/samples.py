"""The figures: each function measures one running server, or returns a function that does."""

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
from benchmarks.servers import MAX_CLIENTS, Handlers, configure_tetrad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.load import Held, Load
    from benchmarks.measure import Sample
    from benchmarks.servers import Instance

HANDLERS_SAMPLED = 20
"""Handlers whose private memory is read; the figure is their median."""
OTHER_PROCESSES = 10
"""Processes that a server may have started meanwhile besides its handlers."""
SETTLE_SECONDS = 0.5
"""Before memory is read: a handler may delay work until its client has been idle for a while."""
WATCHED_SECONDS = 10
"""How long DAMON's CPU time is measured; its cycle takes 5 s."""
RELOADS_PER_SECOND = 2


@dataclass(frozen=True, slots=True)
class Scale:
    """The amount of work: for a full run, or for a quick check that everything runs."""

    rounds: int
    sessions: int
    seconds: int
    round_trips: int
    memory_clients: int
    idle_clients: int
    full_clients: int
    logged_sessions: int


FULL = Scale(
    rounds=7,
    sessions=2_000,
    seconds=4,
    round_trips=20_000,
    memory_clients=2_000,
    idle_clients=5_000,
    full_clients=10_000,
    logged_sessions=100_000,
)
QUICK = Scale(
    rounds=1,
    sessions=300,
    seconds=1,
    round_trips=1_000,
    memory_clients=50,
    idle_clients=100,
    full_clients=200,
    logged_sessions=2_000,
)


def sessions(scale: Scale) -> Sample:
    """Sessions per second: connect, `time`, `quit`, close."""
    return lambda load, server: load.sessions_per_second(server.port, scale.sessions, scale.seconds)


def page_faults(scale: Scale) -> Sample:
    """Page faults per session, in the accepting process and the handler."""

    def sample(load: Load, server: Instance) -> float:
        pid, count = server.leader.pid, scale.sessions // 4
        return load.faults_per_session(server.port, pid, count)

    return sample


def faults_apart(scale: Scale) -> Sample:
    """Page faults per session in the accepting process, one client at a time."""

    def sample(load: Load, server: Instance) -> float:
        pid, count = server.leader.pid, scale.sessions // 4
        before = page_faults_of(pid)
        load.run_one_by_one(server.port, count)
        return (page_faults_of(pid) - before) / count

    return sample


def effort(scale: Scale) -> Sample:
    """CPU time per session of the whole system, in µs."""
    return lambda load, server: load.busy_us_per_session(server.port, scale.sessions)


def first_answer(rate: int, scale: Scale) -> Sample:
    """Milliseconds from connect() to the first answer's last byte, at a rate of new clients."""
    return lambda load, server: load.first_answer_ms(server.port, rate, scale.seconds)["p50"]


def round_trip(scale: Scale) -> Sample:
    """Microseconds from a command to its answer within a session."""
    return lambda load, server: load.round_trip_us(server.port, scale.round_trips)


def pipeline(scale: Scale) -> Sample:
    """Commands per second in one session."""
    return lambda load, server: load.commands_per_second(server.port, scale.round_trips // 10)


@contextmanager
def held_clients(
    load: Load, server: Instance, clients: int, at_once: int = AT_ONCE
) -> Iterator[Held]:
    """Hold clients, release them, and wait until their handlers have ended."""
    before = len(server.children())
    with load.holding(server.port, clients, at_once) as held:
        yield held
        held.release()
    server.wait_for_children(before + OTHER_PROCESSES)


def handler_memory(at_once: int = AT_ONCE) -> Sample:
    """Private KiB of the handler of a client that was answered once and waits."""

    def sample(load: Load, server: Instance) -> float:
        before = server.children()
        with held_clients(load, server, HANDLERS_SAMPLED, at_once):
            handlers = server.children() - before
            if len(handlers) < HANDLERS_SAMPLED:
                raise MeasureError(f"{HANDLERS_SAMPLED} clients share {len(handlers)} processes")
            time.sleep(SETTLE_SECONDS)
            return median(private_kib(pid) for pid in handlers)

    return sample


def client_memory(clients: int) -> Sample:
    """KiB that the system uses per held client, both ends of the connection included."""

    def sample(load: Load, server: Instance) -> float:
        before = system_kib()
        with held_clients(load, server, clients):
            time.sleep(SETTLE_SECONDS)
            return (system_kib() - before) / clients

    return sample


def held_and_answered(clients: int) -> Sample:
    """Clients that are answered again after all were held, one process each."""

    def sample(load: Load, server: Instance) -> float:
        with held_clients(load, server, clients) as held:
            if (handlers := len(server.children())) < clients:
                raise MeasureError(f"{clients} clients share {handlers} processes")
        return held.answered_again

    return sample


def rate_kept(clients: int, scale: Scale) -> Sample:
    """Sessions per second with clients held, relative to none held."""
    rate = sessions(scale)

    def sample(load: Load, server: Instance) -> float:
        alone = rate(load, server)
        with held_clients(load, server, clients):
            return rate(load, server) / alone

    return sample


def effort_kept(clients: int, scale: Scale) -> Sample:
    """CPU time per session with none held, relative to clients held; DAMON's time left out.

    DAMON scans the memory of held processes while sessions run: this is `rate_kept` of a machine
    without DAMON.
    """

    def cost(load: Load, server: Instance) -> float:
        before = damon_us()
        busy = load.busy_us_per_session(server.port, scale.sessions)
        return busy - (damon_us() - before) / scale.sessions

    def sample(load: Load, server: Instance) -> float:
        alone = cost(load, server)
        with held_clients(load, server, clients):
            return alone / cost(load, server)

    return sample


def watched(clients: int) -> Sample:
    """Share of a processor in % that the kernel's DAMON uses while clients are held."""

    def sample(load: Load, server: Instance) -> float:
        with held_clients(load, server, clients):
            began, before = time.monotonic(), damon_us()
            time.sleep(WATCHED_SECONDS)
            return (damon_us() - before) / (time.monotonic() - began) / 10_000

    return sample


def start(_load: Load, server: Instance) -> float:
    """Milliseconds from the start of the program to its first answer."""
    return server.restart()


def slowest_under_reload(scale: Scale) -> Sample:
    """Milliseconds of the slowest first answer at 200 new clients/s, during reloads."""

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
        new_lines = log.read_text()[before:]
        if "server.reload_failed" in new_lines or "server.reloaded" not in new_lines:
            raise MeasureError("the reloads failed")
        return slowest

    return sample


def events_logged(scale: Scale) -> Sample:
    """Events per second written when the logger has a processor and always has input."""

    def sample(_load: Load, server: Instance) -> float:
        logger = server.child_titled("tetrad: logger")
        log = server.site.folder / "tetrad.log"
        return logged_per_second(server.leader.pid, logger, log, scale.logged_sessions)

    return sample


def _reload_until(done: threading.Event, server: Instance) -> None:
    """Reload with a small change each time: an unchanged file could be less work."""
    clients = MAX_CLIENTS
    while not done.wait(1 / RELOADS_PER_SECOND):
        clients += 1
        configure_tetrad(server.site, Handlers(), clients)
        server.leader.send_signal(signal.SIGHUP)
