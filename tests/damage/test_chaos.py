"""Clients come all the time while the daemon is disturbed at random; then every client is counted.

Three parts that do not know each other: the clients note what they see (`chaos_clients`), the
nemesis disturbs (`chaos_nemesis`), and the checker (`chaos_checker`) compares the notes with the
log.
"""

from __future__ import annotations

import glob
import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support import chaos_checker
from tests.support.chaos_clients import (
    COMPLETE,
    EOF,
    NOT_CONNECTED,
    RESET,
    TIMEOUT,
    Crowd,
    Observation,
)
from tests.support.chaos_nemesis import PORTS, Nemesis
from tests.support.fuzzing import seeded_random
from tests.support.processes import title_of, until

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon
    from tests.support.log_lines import Event

ADDRESS = f"127.{os.getpid() >> 8 & 63}.{os.getpid() & 255}.79"
"""A loopback address that only this test uses, so that all its ports are free."""

RUN_SECONDS = float(os.environ.get("TETRAD_TEST_CHAOS_SECONDS") or 300)

CLIENTS = 12
"""How many clients are there at once, beside bursts."""

MOST_EXCUSED = 0.1
"""The part of the clients that killed masters and loggers may leave without a line."""


def all_events(daemon: Daemon) -> list[Event]:
    """Return the lines of all log files; each must be complete."""
    lines = []
    for path in glob.glob(f"{daemon.log_file}*"):
        with open(path, encoding="ascii") as file:
            lines += [json.loads(line) for line in file]
    return lines


def processes_in(folder: str) -> list[str]:
    """Return the titles of the processes whose working directory is a folder."""
    titles = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd") == folder:
                titles.append(f"{entry} {title_of(int(entry))}")
        except OSError:
            continue  # it has ended, or belongs to another user
    return titles


def what_is_left(daemon: Daemon) -> list[str]:
    """Return the processes, files and listeners of a daemon that has been stopped."""
    left = processes_in(daemon.folder)
    left += filter(os.path.exists, (daemon.pidfile, os.path.join(daemon.folder, "control.sock")))
    for port in sum(PORTS.values(), ()):
        try:
            socket.create_server((ADDRESS, port)).close()
        except OSError as error:
            left.append(f"port {port}: {error}")
    return left


@pytest.mark.long
@pytest.mark.timeout(RUN_SECONDS + 300)
def test_every_client_of_a_disturbed_daemon_is_accounted_for(
    prepared: MakeDaemon, figure: Figure
) -> None:
    """No wrong byte, no client without a line that says what became of it, and nothing is left."""
    rng = seeded_random(figure)
    served = prepared()
    served.allow_lost_handlers = True
    nemesis = Nemesis(served, rng, ADDRESS)
    crowd = Crowd(rng.getrandbits(32), nemesis.place)
    served.start()
    assert len(processes_in(served.folder)) == len(served.processes)
    with crowd.coming(CLIENTS):
        nemesis.disturb(RUN_SECONDS, crowd.burst)
    until(lambda: not served.status()["clients"]["now"], "the places of all clients to be free")
    served.stop()
    left = what_is_left(served)
    events = all_events(served)
    verdict = chaos_checker.check(crowd.observations, events)
    figure(
        f"{len(crowd.observations)} clients, {nemesis.disturbances} disturbances, "
        f"{len(events)} log lines, {verdict.refused} refused, {verdict.lost} handlers lost, "
        f"{verdict.excused} clients in {verdict.gaps} gaps of the log"
    )
    assert not verdict.complaints, "\n".join(verdict.complaints[:20])
    assert verdict.excused <= MOST_EXCUSED * len(crowd.observations)
    assert verdict.lost <= nemesis.killed
    assert not left


# The checker itself


def test_the_checker_misses_no_line_and_no_byte(prepared: MakeDaemon) -> None:
    """A run without disturbances is right; a line less, or a byte that is changed, is not."""
    served = prepared()
    nemesis = Nemesis(served, seeded_random(lambda _seed: None), ADDRESS)
    served.start()
    crowd = Crowd(1, nemesis.place)
    clients = [crowd.converse() for _ in range(30)]
    served.stop()
    events = all_events(served)
    assert chaos_checker.check(clients, events).complaints == []
    for at, event in enumerate(events):
        if event["event"].startswith("client.") and event["event"] != "client.invalid":
            assert chaos_checker.check(clients, events[:at] + events[at + 1 :]).complaints, event
            assert chaos_checker.check(clients, [*events, event]).complaints, event
    for at, client in enumerate(clients):
        if client.received:
            wrong = client._replace(received=client.received[:-1] + b"~")
            changed = [*clients[:at], wrong, *clients[at + 1 :]]
            assert chaos_checker.check(changed, events).complaints, client


def line(event: str, **fields: object) -> Event:
    """Return a log line of the client under test."""
    who = {"client": "127.100.0.1:4000", "timestamp": "1970-01-01T00:01:40.000000Z"}
    return {"event": event, "level": "info", **who, **fields}


def end(reason: str, bytes_out: int = 3) -> Event:
    """Return the last log line of the client under test."""
    fields = {"reason": reason, "bytes_in": 3, "bytes_out": bytes_out, "commands": 0}
    return line("client.disconnected", **fields)


CONNECTED = line("client.connected")
SERVED = [CONNECTED, end("eof")]
LOST = line("handler.lost")
CLIENT = Observation("127.100.0.1", "echo", 99.9, 100.1, b"abc", b"abc", COMPLETE)
DROPPED = CLIENT._replace(received=b"", end=RESET)
REFUSED = [line("client.refused", reason="stopping")]
LOWERED = line("server.reloaded", changes={"limits.clients": "1000 -> 2"})


@pytest.mark.quick
@pytest.mark.parametrize(
    ("client", "lines", "complaint"),
    [
        (CLIENT, SERVED, ""),
        (CLIENT._replace(received=b"abd"), SERVED, "wrong bytes"),
        (CLIENT, SERVED[:1], "client.disconnected missing"),
        (CLIENT, SERVED[1:], "client.connected missing"),
        (CLIENT, [], "1 without a line, 0 counted"),
        (CLIENT, [*SERVED, SERVED[1]], "logged twice"),
        (CLIENT, [*SERVED, LOST], ""),
        (CLIENT, [CONNECTED, LOST, end("eof")], "lost, and then disconnected"),
        (CLIENT, [CONNECTED, LOST], ""),
        (CLIENT, [LOST], ""),
        (CLIENT, [CONNECTED, end("eof", 4)], "other number of bytes"),
        (CLIENT._replace(received=b"ab", end=RESET), SERVED, "answers are missing"),
        (CLIENT._replace(received=b"", end=EOF), [CONNECTED, end("eof", 0)], "answers are missing"),
        (CLIENT._replace(end=TIMEOUT), SERVED, "neither served nor refused in time"),
        (DROPPED, [], "without a line"),
        (DROPPED, REFUSED, ""),
        (DROPPED, [line("client.refused", reason="resources")], "resources"),
        (DROPPED, [line("client.refused", reason="clients")], "the table was not full"),
        (DROPPED, [LOWERED, line("client.refused", reason="clients")], ""),
        (CLIENT, [*SERVED, *REFUSED], "refused and served"),
        (CLIENT._replace(received=b"", end=NOT_CONNECTED), [], ""),
        (CLIENT._replace(received=b"", end=NOT_CONNECTED), REFUSED, "not connected, but in"),
        (CLIENT, [*SERVED, line("server.overloaded", level="error")], "server.overloaded"),
        (CLIENT, [line("log.lost", count=None, level="error")], ""),
    ],
)
def test_the_checker_sees(client: Observation, lines: list[Event], complaint: str) -> None:
    """Each kind of fault, and no fault where there is none."""
    complaints = chaos_checker.check([client], lines).complaints
    assert bool(complaints) == bool(complaint)
    assert complaint in "".join(complaints)
