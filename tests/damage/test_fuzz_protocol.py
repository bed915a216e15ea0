"""Whatever bytes clients send, in any pieces, yield commands and invalid commands as documented.

A second, slow implementation of the framing rules must agree with the parser on millions of inputs:
commands and near-commands, cut anywhere and mutated; inputs that reach a new path are kept and
mutated further.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.clients import ANSWER
from tests.support.fuzzing import mutated, run_batches, seeded_random, time_limit
from tetrad.protocol.commands import Parser, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

BATCH = 20_000
"""Inputs for each set of commands."""

ALPHABET = b"timequh\xff%"

CORPUS = 64
"""How many inputs are kept for mutation."""

LONGEST = 256
"""The longest mutated input in bytes: repeated doubling would not end."""


class Step(NamedTuple):
    """The result of one piece."""

    commands: list[bytes]
    invalid: bytes | None
    unfinished: bytes


def reference(names: list[bytes], pieces: list[bytes]) -> Iterator[Step]:
    """Yield the result of each piece, by the documented rules."""
    buffered = b""
    for piece in pieces:
        buffered += piece
        commands, invalid = [], None
        while buffered and invalid is None:
            if buffered[:1] in {b"\r", b"\n", b" ", b"\t", b"\0"}:
                buffered = buffered[1:]
            elif buffered[:4] in names:
                commands.append(buffered[:4])
                buffered = buffered[4:]
            elif any(name.startswith(buffered) for name in names):
                break
            else:
                invalid, buffered = re.split(rb"[\r\n]", buffered[:4])[0], b""
        yield Step(commands, invalid, buffered)


def some_names(rng: random.Random) -> list[bytes]:
    """Return the built-in commands, or names that are easily confused."""
    if rng.random() < 1 / 2:
        return [b"time", b"quit"]
    letters = rng.choice((b"tim", b"aA", bytes(range(0x21, 0x7F))))
    return [bytes(rng.choices(letters, k=4)) for _ in range(rng.randint(0, 5))]


def a_stream(rng: random.Random, names: list[bytes]) -> bytes:
    """Return a stream of commands, beginnings of commands, separators and noise."""
    parts: list[bytes] = []
    for _ in range(rng.choice((1, 2, 3, 5, 9))):
        kind = rng.random()
        if kind < 0.5 and names:
            parts.append(rng.choice(names))
        elif kind < 0.6 and names:
            parts.append(rng.choice(names)[: rng.randrange(4)])
        elif kind < 0.85:
            parts.append(rng.choice((b"\r\n", b"\n", b" ", b"\t", b"\0", b"\r")))
        else:
            parts.append(bytes(rng.choices(ALPHABET, k=rng.randrange(5))))
    return b"".join(parts)


def cut(rng: random.Random, stream: bytes) -> list[bytes]:
    """Cut a stream into random pieces, as TCP may."""
    pieces = []
    for _ in range(rng.randrange(5)):
        at = rng.randint(0, min(6, len(stream)))
        pieces.append(stream[:at])
        stream = stream[at:]
    return [*pieces, stream]


def compare(parser: Parser, names: list[bytes], pieces: list[bytes]) -> int:
    """Compare the parser with the rules; return a number that identifies the path taken."""
    path = 0
    for piece, expected in zip(pieces, reference(names, pieces), strict=True):
        found = Step(*parser.feed(piece), parser.unfinished)
        assert found == expected, (names, pieces, piece)
        path = hash((path, len(found.commands), found.invalid and len(found.invalid)))
    rest = parser.unfinished
    assert (parser.finish(), parser.unfinished) == (rest or None, b""), (names, pieces)
    return path


def batch(seed: int) -> int:
    """Compare a batch of inputs, and return how many paths were taken."""
    rng = random.Random(seed)  # noqa: S311 - it is to be repeated
    names = some_names(rng)
    parser = Parser(names)
    corpus = [b"".join(names), b"\r\n"]
    paths: set[int] = set()
    with time_limit() as begin:
        for number in range(BATCH):
            if not number % 256:
                begin()
            if rng.random() < 2 / 3:
                stream = a_stream(rng, names)
            else:
                stream = mutated(rng, rng.choice(corpus), corpus)[:LONGEST]
            path = compare(parser, names, cut(rng, stream))
            if path not in paths:
                paths.add(path)
                corpus = [*corpus, stream][-CORPUS:]
    return len(paths)


def test_the_parser_follows_the_rules(figure: Figure) -> None:
    """20,000 inputs give the documented result, piece by piece."""
    paths = batch(seeded_random(figure).getrandbits(32))
    figure(f"{BATCH} inputs, {paths} paths through the parser")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_10000000_inputs_follow_the_rules(figure: Figure) -> None:
    """10,000,000 inputs, in two processes, give the documented result."""
    paths, seconds = run_batches(seeded_random(figure), batch, 10_000_000 // BATCH)
    figure(f"10000000 inputs, {paths} paths through the parser, in {seconds:.0f} s")


NAMES = [b"time", b"quit"]


class SessionResult(NamedTuple):
    """What a client receives for a stream that arrives at once, and what the log shows."""

    times: int
    shown: list[str]
    reason: str


def expected_of(pieces: list[bytes]) -> SessionResult:
    """Return the expected result of a session; the log shows all commands and invalid ones."""
    shown: list[str] = []
    times = 0
    for step in reference(NAMES, pieces):
        for name in step.commands:
            shown.append(printable(name))
            if name == b"quit":
                return SessionResult(times, shown, "quit")
            times += 1
        shown += [printable(step.invalid)] if step.invalid else []
    return SessionResult(
        times, [*shown, *([printable(step.unfinished)] if step.unfinished else [])], "eof"
    )


def check_answers(client: Client, pieces: list[bytes]) -> None:
    """End a session, and check its answers."""
    with contextlib.suppress(OSError):  # the server has closed it already
        client.half_close()
    answers, expected = client.read_all(), expected_of(pieces)
    quit_answer = b"quit" if expected.reason == "quit" else b""
    wanted = rb"(?:%b){%d}%b" % (ANSWER.pattern, expected.times, quit_answer)
    assert re.fullmatch(wanted, answers), (pieces, answers)
    client.close()


def check_log(daemon: Daemon, sessions: list[list[bytes]]) -> None:
    """Check that the log has each session's commands and end, and no error."""
    daemon.wait_for("client.disconnected", count=len(sessions))
    expected = Counter(
        (tuple(result.shown), result.reason) for result in map(expected_of, sessions)
    )
    shown: dict[str, list[str]] = {}
    ends: dict[str, str] = {}
    for line in daemon.events():
        if line["event"] in {"client.command", "client.invalid"}:
            shown.setdefault(line["connection"], []).append(line["command"])
        if line["event"] == "client.disconnected":
            ends[line["connection"]] = line["reason"]
    found = Counter((tuple(shown.get(one, [])), reason) for one, reason in ends.items())
    assert found == expected
    assert {line["level"] for line in daemon.events()} <= {"info", "warning"}


def a_session(rng: random.Random) -> bytes:
    """Return the bytes that a client sends in a session."""
    return mutated(rng, a_stream(rng, NAMES), [b"time\r\nquit\r\n"])[:1000]


def run_sessions(daemon: Daemon, rng: random.Random, count: int) -> None:
    """Run sessions with mutated input, 20 at a time, each sent at once."""
    sessions = [[a_session(rng)] for _ in range(count)]
    for start in range(0, count, 20):
        some = sessions[start : start + 20]
        clients = [daemon.connect() for _ in some]
        for client, pieces in zip(clients, some, strict=True):
            client.send(pieces[0])
        for client, pieces in zip(clients, some, strict=True):
            check_answers(client, pieces)
    check_log(daemon, sessions)


def test_sessions_with_mutated_input_follow_the_rules(daemon: MakeDaemon, figure: Figure) -> None:
    """Each client gets the documented answers, the log shows the rest, and nothing breaks."""
    run_sessions(daemon(), seeded_random(figure), 200)


@pytest.mark.parametrize(
    "count", [20, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_mutated_input_in_pieces_follows_the_rules(
    daemon: MakeDaemon, figure: Figure, count: int
) -> None:
    """The result depends on what has arrived when the handler reads."""
    rng, served = seeded_random(figure), daemon()
    sessions = [cut(rng, a_session(rng)) for _ in range(count)]
    for pieces in sessions:
        client = served.connect()
        with contextlib.suppress(ConnectionError):  # it has sent `quit`
            for piece in filter(None, pieces):
                client.send_and_wait(piece)
        check_answers(client, pieces)
    check_log(served, sessions)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_10000_sessions_with_mutated_input(daemon: MakeDaemon, figure: Figure) -> None:
    """With one handler a session, and with spare handlers."""
    rng = seeded_random(figure)
    for handlers in ({}, {"spare": 4, "clients_each": 100}):
        run_sessions(daemon(handlers=handlers), rng, 5000)


def test_echo_returns_mutated_input(daemon: MakeDaemon, figure: Figure) -> None:
    """The echo service returns everything byte for byte."""
    rng, served = seeded_random(figure), daemon(listen=[{"port": 0, "service": "echo"}])
    client = served.connect()
    for _ in range(500):
        data = mutated(rng, rng.randbytes(rng.choice((1, 30, 3000))), [b"END\n", b"\0"])
        assert client.echo(data) == data
