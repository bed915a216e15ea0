"""Hostile clients, alone and 100 at once: each is ended by the expected deadline."""

from __future__ import annotations

import contextlib
import select
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.support import hostile_clients as hostile
from tests.support import processes
from tests.support.background_clients import BackgroundClients
from tests.support.hostile_clients import Hostile
from tests.support.processes import memory_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import Figure, MakeDaemon

TOLERANCE_SECONDS = 0.5
"""How far a deadline may be missed, beyond the slowest background client's time."""

LATE_SECONDS = 2.0
"""How long a background client may wait at most."""

MASTER_GROWTH_KIB = 1024
HANDLER_GROWTH_KIB = 2048
"""How much more memory a handler may use than the master before the test."""

HOSTILE = {
    "silent": Hostile(hostile.stay_silent, "first_command_timeout", 0.8),
    "slow": Hostile(hostile.send_a_byte_a_second, "first_command_timeout", 1.5),
    "deaf": Hostile(hostile.never_read, "send_timeout", 0.8),
    "resets": Hostile(hostile.reset_in_the_middle_of_an_answer, "reset"),
    "no newline": Hostile(hostile.never_send_newline, "max_duration", 1.0),
    "comes and goes": Hostile(hostile.connect_and_close, "eof"),
    "quits at length": Hostile(hostile.send_after_quit, "quit"),
    "random bytes": Hostile(hostile.send_random_bytes, "first_command_timeout", 0.8),
    "TLS": Hostile(hostile.send_tls_client_hello, "first_command_timeout", 0.8),
}


class Memory:
    """The peak memory in KiB of the master and of some handlers, against the master's `before`."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.before = memory_of(master)["Rss"]
        self.master = self.handler = 0

    def sample(self, handlers: list[int]) -> list[int]:
        """Sample the memory; return the handlers that still exist."""
        self.master = max(self.master, memory_of(self._master)["Rss"])
        left = []
        for pid in handlers:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self.handler = max(self.handler, memory_of(pid).get("Rss", 0))
                left.append(pid)
        return left

    def check(self) -> None:
        """Fail if memory has grown too much."""
        assert self.master - self.before <= MASTER_GROWTH_KIB
        assert self.handler - self.before <= HANDLER_GROWTH_KIB

    def __str__(self) -> str:
        """Return the growth beyond the master's memory before."""
        master, handler = self.master - self.before, self.handler - self.before
        return f"master {master:+} KiB, handlers {handler:+} KiB"


def handlers_of(daemon: Daemon, crowd: list[Client]) -> list[int]:
    """Return the handlers of these clients; empty until each client has had one.

    On a busy machine the first ones may have ended before the last ones begin: these are in the
    log, unless its level leaves them out.
    """
    connected = daemon.events("client.connected")
    found = {line["client"]: line["pid"] for line in connected}
    found |= {one["client"]: one["pid"] for one in daemon.status()["sessions"]}
    pids = [found[client.name] for client in crowd if client.name in found]
    return pids if len(pids) == len(crowd) else []


def misbehave(
    daemon: Daemon, count: int, behave: Callable[[Client], None]
) -> tuple[list[Client], Memory]:
    """Run so many hostile clients in parallel; return them and the peak memory.

    All of them are connected first, so that forks are not measured.
    """
    memory = Memory(daemon.pid)
    crowd = [daemon.connect_with_small_buffers() for _ in range(count)]
    handlers = until(lambda: handlers_of(daemon, crowd), "a handler for each of them")
    with ThreadPoolExecutor(count) as pool:
        ends = [pool.submit(behave, client) for client in crowd]
        until(lambda: not memory.sample(handlers), "the end of their sessions")
    for end in ends:
        end.result()
    return crowd, memory


def sessions_of(daemon: Daemon, crowd: list[Client], others: int) -> list[list[Event]]:
    """Return the log lines of each hostile client; `others` is the number of other sessions."""
    until(lambda: not daemon.status()["clients"]["now"], "the end of all sessions")
    assert daemon.status()["accepted"] == len(crowd) + others
    daemon.stop()
    lines: dict[str, list[Event]] = {client.name: [] for client in crowd}
    for line in daemon.events():
        if line.get("client") in lines:
            lines[line["client"]].append(line)
    return list(lines.values())


def lifetime(reason: str, session: list[Event]) -> float:
    """Return how many seconds the deadline of a session's end lasted, by the log."""
    if reason == "max_duration":
        duration: float = session[-1]["duration"]
        return duration
    before, last = (datetime.fromisoformat(line["timestamp"]) for line in session[-2:])
    return (last - before).total_seconds()


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_clients_are_ended_by_their_deadlines(
    daemon: MakeDaemon, figure: Figure, kind: str, count: int
) -> None:
    """Each ends for the expected reason, in time; memory stays flat, others are served."""
    behave, reason, seconds = HOSTILE[kind]
    served = daemon(session=HOSTILE[kind].session, commands=hostile.LONG_COMMAND)
    with BackgroundClients(served.port) as good:
        crowd, memory = misbehave(served, count, behave)
    sessions = sessions_of(served, crowd, good.sessions)
    assert [session[-1]["reason"] for session in sessions] == [reason] * count
    lasted = [lifetime(reason, session) for session in sessions]
    if seconds is not None:
        assert min(lasted) >= seconds - TOLERANCE_SECONDS
        assert max(lasted) <= seconds + TOLERANCE_SECONDS + good.slowest
    memory.check()
    assert good.slowest < LATE_SECONDS
    figure(
        f"ended by {reason} after {min(lasted):.2f} to {max(lasted):.2f} s; {memory}; "
        f"the slowest of {good.sessions} background clients took {good.slowest * 1000:.0f} ms"
    )


def test_the_connection_of_a_client_that_does_not_read_is_reset(daemon: MakeDaemon) -> None:
    """The connection ends with the session: the kernel does not keep the unread answers."""
    # Long answers to few commands: they exceed all buffers, and one read gets all commands.
    huge = {"huge": {"clock": "0123456789" * 6000}}
    served = daemon(session={"send_timeout": "200ms"}, commands=huge)
    client = served.connect_with_small_buffers()
    client.send(b"huge" * 100)
    assert served.wait_for("client.disconnected")["reason"] == "send_timeout"
    poll = select.poll()
    poll.register(client.socket, 0)
    assert poll.poll(1000), "the connection is still open"


MUCH = {
    "a gibibyte of garbage": (1, hostile.send_garbage(1024)),
    "a hundred times 100 MiB of garbage": (100, hostile.send_garbage(100)),
    "a million commands": (1, hostile.send_commands(1_000_000)),
    "a hundred times 50,000 commands": (100, hostile.send_commands(50_000)),
}


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", MUCH)
def test_clients_that_send_much_are_served(
    daemon: MakeDaemon, figure: Figure, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """All input is read to its end, without more memory than for little input."""
    monkeypatch.setattr(processes, "TIMEOUT_SECONDS", 300.0)
    count, behave = MUCH[kind]
    served = daemon(session={"max_duration": None}, log={"level": "error"})
    began = time.monotonic()
    with BackgroundClients(served.port) as good:
        _, memory = misbehave(served, count, behave)
    seconds = time.monotonic() - began
    memory.check()
    assert good.slowest < LATE_SECONDS
    figure(
        f"served in {seconds:.1f} s; {memory}; "
        f"the slowest of {good.sessions} background clients took {good.slowest * 1000:.0f} ms"
    )
