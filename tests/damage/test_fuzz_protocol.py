"""Whatever bytes clients send, in whatever pieces: commands, invalid commands, and nothing else.

The rules of the framing are told a second time here, without a thought for speed, and both have to
say the same of millions of inputs: streams put together from commands and what is nearly one, cut
anywhere, spoilt, and remembered when they led to something new.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest

from clients import ANSWER
from tetrad.protocol.commands import Parser, printable

from .fuzzing import in_batches, patience, seeded, spoilt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clients import Client
    from conftest import Figure, MakeDaemon
    from daemons import Daemon

BATCH = 20_000
"""Inputs for parsers that know the same commands."""

ALPHABET = b"timequh\xff%"

CORPUS = 64
"""How many inputs are kept to be spoilt."""

LONGEST = 256
"""Bytes of an input that was spoilt: pieces that are doubled again and again grow."""


class Step(NamedTuple):
    """What came of a piece."""

    commands: list[bytes]
    invalid: bytes | None
    unfinished: bytes


def naive(names: list[bytes], pieces: list[bytes]) -> Iterator[Step]:
    """Say what comes of each piece, by the rules as they are written down."""
    at_hand = b""
    for piece in pieces:
        at_hand += piece
        commands, invalid = [], None
        while at_hand and invalid is None:
            if at_hand[:1] in {b"\r", b"\n", b" ", b"\t", b"\0"}:
                at_hand = at_hand[1:]
            elif at_hand[:4] in names:
                commands.append(at_hand[:4])
                at_hand = at_hand[4:]
            elif any(name.startswith(at_hand) for name in names):
                break
            else:
                invalid, at_hand = re.split(rb"[\r\n]", at_hand[:4])[0], b""
        yield Step(commands, invalid, at_hand)


def some_names(chance: random.Random) -> list[bytes]:
    """Return the built-in commands, or some that are easily taken for each other."""
    if chance.random() < 1 / 2:
        return [b"time", b"quit"]
    letters = chance.choice((b"tim", b"aA", bytes(range(0x21, 0x7F))))
    return [bytes(chance.choices(letters, k=4)) for _ in range(chance.randint(0, 5))]


def a_stream(chance: random.Random, names: list[bytes]) -> bytes:
    """Put together commands, beginnings of commands, what stands between them, and noise."""
    parts: list[bytes] = []
    for _ in range(chance.choice((1, 2, 3, 5, 9))):
        kind = chance.random()
        if kind < 0.5 and names:
            parts.append(chance.choice(names))
        elif kind < 0.6 and names:
            parts.append(chance.choice(names)[: chance.randrange(4)])
        elif kind < 0.85:
            parts.append(chance.choice((b"\r\n", b"\n", b" ", b"\t", b"\0", b"\r")))
        else:
            parts.append(bytes(chance.choices(ALPHABET, k=chance.randrange(5))))
    return b"".join(parts)


def cut(chance: random.Random, stream: bytes) -> list[bytes]:
    """Cut a stream anywhere, as TCP may."""
    pieces = []
    for _ in range(chance.randrange(5)):
        at = chance.randint(0, min(6, len(stream)))
        pieces.append(stream[:at])
        stream = stream[at:]
    return [*pieces, stream]


def compare(parser: Parser, names: list[bytes], pieces: list[bytes]) -> int:
    """Hold the parser against the rules; return what tells one way through them from another."""
    way = 0
    for piece, expected in zip(pieces, naive(names, pieces), strict=True):
        found = Step(*parser.feed(piece), parser.unfinished)
        assert found == expected, (names, pieces, piece)
        way = hash((way, len(found.commands), found.invalid and len(found.invalid)))
    rest = parser.unfinished
    assert (parser.finish(), parser.unfinished) == (rest or None, b""), (names, pieces)
    return way


def batch(seed: int) -> int:
    """Compare the two on a batch of inputs, and return how many ways through them were seen."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeated
    names = some_names(chance)
    parser = Parser(names)
    corpus = [b"".join(names), b"\r\n"]
    ways: set[int] = set()
    with patience() as begin:
        for number in range(BATCH):
            if not number % 256:
                begin()
            if chance.random() < 2 / 3:
                stream = a_stream(chance, names)
            else:
                stream = spoilt(chance, chance.choice(corpus), corpus)[:LONGEST]
            way = compare(parser, names, cut(chance, stream))
            if way not in ways:
                ways.add(way)
                corpus = [*corpus, stream][-CORPUS:]
    return len(ways)


def test_the_parser_keeps_the_rules(figure: Figure) -> None:
    """Thousands of spoilt inputs give what the rules say, piece by piece."""
    ways = batch(seeded(figure).getrandbits(32))
    figure(f"{BATCH} inputs, {ways} ways through the parser")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_million_inputs_keep_the_rules(figure: Figure) -> None:
    """Ten million inputs, over two processes, give what the rules say."""
    ways, seconds = in_batches(seeded(figure), batch, 10_000_000 // BATCH)
    figure(f"10000000 inputs, {ways} ways through the parser, in {seconds:.0f} s")


NAMES = [b"time", b"quit"]


class Heard(NamedTuple):
    """What a client gets for a stream that arrives whole, and what the log has of it."""

    times: int
    shown: list[str]
    reason: str


def expected_of(pieces: list[bytes]) -> Heard:
    """Say what a session is to come to; the log has each command and each invalid one."""
    shown: list[str] = []
    times = 0
    for step in naive(NAMES, pieces):
        for name in step.commands:
            shown.append(printable(name))
            if name == b"quit":
                return Heard(times, shown, "quit")
            times += 1
        shown += [printable(step.invalid)] if step.invalid else []
    return Heard(times, [*shown, *([printable(step.unfinished)] if step.unfinished else [])], "eof")


def check_answers(client: Client, pieces: list[bytes]) -> None:
    """End a session, which must have got what was due to it."""
    with contextlib.suppress(OSError):  # the server has ended it already
        client.end()
    answers, expected = client.read_all(), expected_of(pieces)
    goodbye = b"quit" if expected.reason == "quit" else b""
    wanted = rb"(?:%b){%d}%b" % (ANSWER.pattern, expected.times, goodbye)
    assert re.fullmatch(wanted, answers), (pieces, answers)
    client.close()


def check_log(daemon: Daemon, sessions: list[list[bytes]]) -> None:
    """See that the log has each session's commands and its end, and no defect."""
    daemon.wait_for("client.disconnected", count=len(sessions))
    expected = Counter((tuple(heard.shown), heard.reason) for heard in map(expected_of, sessions))
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


def a_session(chance: random.Random) -> bytes:
    """Return what a client that talks nonsense says."""
    return spoilt(chance, a_stream(chance, NAMES), [b"time\r\nquit\r\n"])[:1000]


def run_sessions(daemon: Daemon, chance: random.Random, count: int) -> None:
    """Have so many clients talk nonsense, each all at once, and some of them side by side."""
    sessions = [[a_session(chance)] for _ in range(count)]
    for start in range(0, count, 20):
        some = sessions[start : start + 20]
        clients = [daemon.connect() for _ in some]
        for client, pieces in zip(clients, some, strict=True):
            client.send(pieces[0])
        for client, pieces in zip(clients, some, strict=True):
            check_answers(client, pieces)
    check_log(daemon, sessions)


def test_clients_that_talk_nonsense_get_what_the_rules_say(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """Each gets the answers that are due to it, the log says the rest, and nothing breaks."""
    run_sessions(daemon(), seeded(figure), 200)


@pytest.mark.parametrize(
    "count", [20, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_what_is_at_hand_is_what_a_client_has_sent_so_far(
    daemon: MakeDaemon, figure: Figure, count: int
) -> None:
    """Whoever sends nonsense in pieces gets what the rules say of these pieces."""
    chance, served = seeded(figure), daemon()
    sessions = [cut(chance, a_session(chance)) for _ in range(count)]
    for pieces in sessions:
        client = served.connect()
        with contextlib.suppress(ConnectionError):  # it has quit
            for piece in filter(None, pieces):
                client.say(piece)
        check_answers(client, pieces)
    check_log(served, sessions)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_thousand_clients_that_talk_nonsense(daemon: MakeDaemon, figure: Figure) -> None:
    """Ten thousand sessions of nonsense are served, with handlers of their own and with spares."""
    chance = seeded(figure)
    for handlers in ({}, {"spare": 4, "clients_each": 100}):
        run_sessions(daemon(handlers=handlers), chance, 5000)


def test_echo_takes_nonsense_for_what_it_is(daemon: MakeDaemon, figure: Figure) -> None:
    """Whatever is sent comes back, byte for byte."""
    chance, served = seeded(figure), daemon(listen=[{"port": 0, "service": "echo"}])
    client = served.connect()
    for _ in range(500):
        data = spoilt(chance, chance.randbytes(chance.choice((1, 30, 3000))), [b"END\n", b"\0"])
        assert client.echo(data) == data
