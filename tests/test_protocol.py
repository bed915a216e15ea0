"""The four-byte protocol: whatever pieces the bytes come in, the same commands come out."""

from __future__ import annotations

import re
import string
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.protocol.commands import Parser, printable

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

NAMES = (b"time", b"quit", b"tick", b"stop")

names = st.sampled_from(NAMES)
gaps = st.text("\r\n \t\0", max_size=3).map(str.encode)
streams = st.lists(st.tuples(gaps, names, gaps).map(b"".join)).map(b"".join)
noise = st.text("timequckstop\r\n \t\0é", max_size=24).map(lambda text: text.encode("latin-1"))
anything = st.one_of(st.binary(max_size=24), noise, st.tuples(streams, noise).map(b"".join))


@st.composite
def pieces_of(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> list[bytes]:
    """Cut a stream anywhere, as TCP may."""
    whole = draw(data)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]


def expected(data: bytes) -> tuple[list[bytes], bytes | None, bytes]:
    """Say what a new parser makes of `data`, told once more: commands, invalid, unfinished."""
    known = rb"(?:time|quit|tick|stop)"
    head = re.match(rb"(?:[\r\n \t\0]*%b)*[\r\n \t\0]*" % known, data)
    assert head is not None
    rest = data[head.end() :]
    commands = re.findall(known, head[0])
    if rest and any(name.startswith(rest) for name in NAMES):
        return commands, None, rest
    invalid = re.match(rb"[^\r\n]{1,4}", rest)
    return commands, invalid and invalid[0], b""


@given(st.lists(names), st.data())
def test_any_cutting_of_commands_gives_the_same_commands(
    sent: list[bytes], data: st.DataObject
) -> None:
    """Commands arrive in order, in whatever pieces and whatever stands between them."""
    stream = b"".join(data.draw(gaps) + name for name in sent) + data.draw(gaps)
    parser = Parser(NAMES)
    fed = [parser.feed(piece) for piece in data.draw(pieces_of(st.just(stream)))]
    assert [name for commands, _ in fed for name in commands] == sent
    assert {invalid for _, invalid in fed} == {None}
    assert parser.finish() is None


@given(anything)
def test_a_feed_gives_what_the_rules_say(data: bytes) -> None:
    """Commands, the invalid one behind them, and what is unfinished are those of the rules."""
    parser = Parser(NAMES)
    assert (*parser.feed(data), parser.unfinished) == expected(data)


@given(pieces_of(anything))
def test_no_input_raises_and_no_invalid_command_is_longer_than_four_bytes(
    pieces: list[bytes],
) -> None:
    """An invalid command has one to four bytes, begins with one that counts, and is one line."""
    parser = Parser(NAMES)
    invalids = [parser.feed(piece)[1] for piece in pieces]
    for invalid in [*invalids, parser.finish()]:
        assert invalid is None or re.fullmatch(rb"[^\r\n \t\0][^\r\n]{0,3}", invalid)


@given(pieces_of(anything))
def test_what_is_unfinished_is_the_beginning_of_a_command(pieces: list[bytes]) -> None:
    """What is kept for the next piece can become a known command, and is never a whole one."""
    parser = Parser(NAMES)
    for piece in pieces:
        parser.feed(piece)
        assert parser.unfinished in {name[:n] for name in NAMES for n in range(4)}


@given(pieces_of(anything), anything)
def test_after_an_invalid_command_the_rest_at_hand_is_gone(
    pieces: list[bytes], behind: bytes
) -> None:
    """Nothing that stood behind an invalid command is heard of again."""
    parser = Parser(NAMES)
    for piece in pieces:
        parser.feed(piece)
    assert parser.feed(b"\n!" + behind)[1] is not None
    assert parser.unfinished == b""
    assert parser.feed(b"time") == ([b"time"], None)


@pytest.mark.parametrize(
    ("pieces", "commands", "invalid"),
    [
        ([b"time"], [b"time"], None),
        ([b"time\r\n"], [b"time"], None),
        ([b"t", b"im", b"e"], [b"time"], None),
        ([b"timetimequit"], [b"time", b"time", b"quit"], None),
        ([b"\0\t \r\ntime \nquit"], [b"time", b"quit"], None),
        ([b"help me\r\n"], [], b"help"),
        ([b"help", b"time"], [b"time"], b"help"),
        ([b"timehelptime"], [b"time"], b"help"),
        ([b"timx"], [], b"timx"),
        ([b"tix"], [], b"tix"),
        ([b"x"], [], b"x"),
        ([b"tim\r\n"], [], b"tim"),
        ([b"ti\n"], [], b"ti"),
        ([b"t\re"], [], b"t"),
        ([b"t\rx\ne"], [], b"t"),
        ([b"t", b"\n"], [], b"t"),
        ([b"ti me"], [], b"ti m"),
        ([b"TIME"], [], b"TIME"),
        ([b"\xff\0\xfe\x80\x81"], [], b"\xff\0\xfe\x80"),
        ([b""], [], None),
        ([b" \r\n\t\0"], [], None),
    ],
)
def test_commands_are_told_from_what_is_invalid(
    pieces: list[bytes], commands: list[bytes], invalid: bytes | None
) -> None:
    """What a client sends is commands, and at most one invalid one, which is logged so far."""
    parser = Parser(NAMES)
    fed = [parser.feed(piece) for piece in pieces]
    assert [name for found, _ in fed for name in found] == commands
    assert [word for _, word in fed if word is not None] == ([] if invalid is None else [invalid])


def test_five_bytes_stand_between_commands_and_no_others() -> None:
    """Carriage returns, line feeds, spaces, tabs and NULs are skipped, and nothing else is."""
    skipped = {n for n in range(256) if Parser(NAMES).feed(bytes([n]) + b"time")[0]}
    assert bytes(sorted(skipped)) == b"\0\t\n\r "


def test_an_unfinished_command_waits_for_its_end() -> None:
    """What can still become a command is neither answered nor refused."""
    parser = Parser(NAMES)
    assert parser.feed(b"quitti") == ([b"quit"], None)
    assert parser.unfinished == b"ti"
    assert parser.feed(b"ck") == ([b"tick"], None)
    assert parser.unfinished == b""


@pytest.mark.parametrize("begun", [b"t", b"ti", b"tim"])
def test_the_end_of_input_makes_an_unfinished_command_invalid(begun: bytes) -> None:
    """At the end what was begun is invalid, and it is told once."""
    parser = Parser(NAMES)
    parser.feed(b"quit\n" + begun)
    assert parser.finish() == begun
    assert parser.unfinished == b""
    assert parser.finish() is None


def test_commands_may_come_from_anywhere() -> None:
    """Names that can be gone through once are known for good."""
    parser = Parser(iter(NAMES))
    assert parser.feed(b"timeti") == ([b"time"], None)
    assert parser.feed(b"ckstop") == ([b"tick", b"stop"], None)


def test_another_parser_knows_the_same_and_begins_anew() -> None:
    """What one client has begun is nothing to the next one."""
    parser = Parser(NAMES)
    parser.feed(b"ti")
    another = parser.another()
    assert another.feed(b"me") == ([], b"me")
    assert another.feed(b"stopti") == ([b"stop"], None)
    assert (parser.unfinished, another.unfinished) == (b"ti", b"ti")


def test_a_parser_that_knows_no_command_refuses_everything() -> None:
    """Where an operator has taken all commands away, whatever comes is invalid."""
    assert Parser([]).feed(b" time") == ([], b"time")


@given(st.binary(max_size=4))
def test_a_logged_command_is_printable_and_short(command: bytes) -> None:
    """Whatever was sent, the log shows at most 16 characters of printable ASCII."""
    shown = printable(command)
    assert set(shown) <= {*string.ascii_letters, *string.digits, *string.punctuation, " "}
    assert len(command) <= len(shown) <= 16


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (b"help", "help"),
        (b" ~!\\", " ~!\\"),
        (b'"{}', '"{}'),
        (b"\x00\x1f\x7f\xff", r"\x00\x1f\x7f\xff"),
        (b"\x80\xa0\n", r"\x80\xa0\x0a"),
        (b"", ""),
    ],
)
def test_a_logged_command_shows_printable_bytes_as_they_are(command: bytes, shown: str) -> None:
    r"""Printable ASCII stands for itself, every other byte as ``\xNN``."""
    assert printable(command) == shown
