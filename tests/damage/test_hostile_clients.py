"""Hostile clients, alone and in crowds: each is served or ended by its deadline, and no other."""

from __future__ import annotations

import contextlib
import select
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

import processes
from damage import hostile
from damage.background_clients import Regulars
from damage.hostile import Hostile
from processes import memory_of, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients import Client
    from conftest import Figure, MakeDaemon
    from daemons import Daemon, Event

TOLERANCE_SECONDS = 0.5
"""How early or late a deadline may be, beside what the machine keeps good clients waiting."""

LATE_SECONDS = 2.0
"""A good client that waited as long as this was kept waiting by the bad ones."""

MASTER_GROWTH_KIB = 1024
HANDLER_GROWTH_KIB = 2048
"""What a handler may have beyond the memory of the master that it was forked from."""

HOSTILE = {
    "silent": Hostile(hostile.say_nothing, "first_command_timeout", 0.8),
    "slow": Hostile(hostile.send_a_byte_a_second, "first_command_timeout", 1.5),
    "deaf": Hostile(hostile.never_read, "send_timeout", 0.8),
    "resets": Hostile(hostile.reset_in_the_middle_of_an_answer, "reset"),
    "no newline": Hostile(hostile.never_end_the_line, "max_duration", 1.0),
    "comes and goes": Hostile(hostile.come_and_go, "eof"),
    "quits at length": Hostile(hostile.quit_and_go_on, "quit"),
    "random bytes": Hostile(hostile.send_random_bytes, "idle_timeout", 0.8),
    "TLS": Hostile(hostile.say_hello_in_tls, "idle_timeout", 0.8),
}


class Memory:
    """The most memory, in KiB, that the master and some handlers have had since `before`."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.before = memory_of(master)["Rss"]
        self.master = self.handler = 0

    def look(self, handlers: list[int]) -> list[int]:
        """Look once more; return those of the handlers that are still there."""
        self.master = max(self.master, memory_of(self._master)["Rss"])
        left = []
        for pid in handlers:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self.handler = max(self.handler, memory_of(pid).get("Rss", 0))
                left.append(pid)
        return left

    def check(self) -> None:
        """Fail where it was not flat."""
        assert self.master - self.before <= MASTER_GROWTH_KIB
        assert self.handler - self.before <= HANDLER_GROWTH_KIB

    def __str__(self) -> str:
        """Tell how much more they had than the master before."""
        master, handler = self.master - self.before, self.handler - self.before
        return f"master {master:+} KiB, handlers {handler:+} KiB"


def handlers_of(daemon: Daemon, crowd: list[Client]) -> list[int]:
    """Return the handlers of these clients, once all of them have one."""
    names = {client.name for client in crowd}
    pids = [line["pid"] for line in daemon.status()["sessions"] if line["client"] in names]
    return pids if len(pids) == len(crowd) else []


def misbehave(
    daemon: Daemon, count: int, behave: Callable[[Client], None]
) -> tuple[list[Client], Memory]:
    """Have so many clients be hostile at once; return them, and what it took to bear them.

    All are in before the first is hostile: how long a fork takes beside floods is another matter.
    """
    memory = Memory(daemon.pid)
    crowd = [daemon.connect_with_little_room() for _ in range(count)]
    handlers = until(lambda: handlers_of(daemon, crowd), "a handler for each of them")
    with ThreadPoolExecutor(count) as pool:
        ends = [pool.submit(behave, client) for client in crowd]
        until(lambda: not memory.look(handlers), "the end of their sessions")
    for end in ends:
        end.result()
    return crowd, memory


def sessions_of(daemon: Daemon, crowd: list[Client], others: int) -> list[list[Event]]:
    """Return the log's lines about each of these clients, who were not the only ones."""
    until(lambda: not daemon.status()["clients"]["now"], "the end of all sessions")
    assert daemon.status()["accepted"] == len(crowd) + others
    daemon.stop()
    lines: dict[str, list[Event]] = {client.name: [] for client in crowd}
    for line in daemon.events():
        if line.get("client") in lines:
            lines[line["client"]].append(line)
    return list(lines.values())


def lifetime(reason: str, session: list[Event]) -> float:
    """Return for how long a session's end was put off, from what was logged before it, in s."""
    if reason == "max_duration":
        duration: float = session[-1]["duration"]
        return duration
    before, last = (datetime.fromisoformat(line["timestamp"]) for line in session[-2:])
    return (last - before).total_seconds()


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_clients_are_borne(
    daemon: MakeDaemon, figure: Figure, kind: str, count: int
) -> None:
    """They end as they should, when they should; memory is flat, and good clients are in time."""
    behave, reason, seconds = HOSTILE[kind]
    served = daemon(session=HOSTILE[kind].session, commands=hostile.LONG_COMMAND)
    with Regulars(served.port) as good:
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
        f"the slowest of {good.sessions} good clients took {good.slowest * 1000:.0f} ms"
    )


def test_nothing_is_left_of_a_client_that_does_not_read(daemon: MakeDaemon) -> None:
    """With the session ends the connection: the kernel does not keep what nobody will read."""
    # Answers so long that there is room for them nowhere, but for few commands, read all at once.
    huge = {"huge": {"clock": "0123456789" * 6000}}
    served = daemon(session={"send_timeout": "200ms"}, commands=huge)
    client = served.connect_with_little_room()
    client.send(b"huge" * 100)
    assert served.wait_for("client.disconnected")["reason"] == "send_timeout"
    poll = select.poll()
    poll.register(client.socket, 0)
    assert poll.poll(1000), "the connection is still there"


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
    """However much it is, it is heard to its end, in no more memory than a little needs."""
    monkeypatch.setattr(processes, "PATIENCE_SECONDS", 300.0)
    count, behave = MUCH[kind]
    served = daemon(session={"max_duration": None}, log={"level": "error"})
    began = time.monotonic()
    with Regulars(served.port) as good:
        _, memory = misbehave(served, count, behave)
    seconds = time.monotonic() - began
    memory.check()
    assert good.slowest < LATE_SECONDS
    figure(
        f"served in {seconds:.1f} s; {memory}; "
        f"the slowest of {good.sessions} good clients took {good.slowest * 1000:.0f} ms"
    )
