"""The four-byte command protocol: the same commands, in whatever pieces the bytes arrive."""

from __future__ import annotations

import re
import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.protocol.commands import Parser, printable

NAMES = (b"time", b"quit", b"tick", b"stop")
names = st.sampled_from(NAMES)
gaps = st.text("\r\n \t\0", max_size=3).map(str.encode)
streams = st.lists(st.tuples(gaps, names, gaps).map(b"".join)).map(b"".join)
near_misses = st.text("timequckstop\r\n \t\0é", max_size=24).map(
    lambda text: text.encode("latin-1")
)
anything = st.one_of(
    st.binary(max_size=24), near_misses, st.tuples(streams, near_misses).map(b"".join)
)


@st.composite
def pieces_of(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> list[bytes]:
    """Split a stream anywhere, as TCP may."""
    stream = draw(data)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]


def expected(data: bytes) -> tuple[list[bytes], bytes | None, bytes]:
    """Return what a new parser should make of `data`: commands, invalid, unfinished.

    The rules of the protocol, written a second time with regular expressions.
    """
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
def test_commands_do_not_depend_on_how_the_stream_is_split(
    sent: list[bytes], data: st.DataObject
) -> None:
    """All commands are found, in order, whatever pieces and separators are around them."""
    stream = b"".join(data.draw(gaps) + name for name in sent) + data.draw(gaps)
    parser = Parser(NAMES)
    fed = [parser.feed(piece) for piece in data.draw(pieces_of(st.just(stream)))]
    assert [name for commands, _ in fed for name in commands] == sent
    assert {invalid for _, invalid in fed} == {None}
    assert parser.finish() is None


@given(anything)
def test_the_parser_follows_the_rules(data: bytes) -> None:
    """Commands, an invalid one and an unfinished one are those of a second implementation."""
    parser = Parser(NAMES)
    assert (*parser.feed(data), parser.unfinished) == expected(data)


@given(pieces_of(anything))
def test_no_input_raises_and_no_invalid_command_is_longer_than_four_bytes(
    pieces: list[bytes],
) -> None:
    """An invalid command has one to four bytes of one line, and no separator in front."""
    parser = Parser(NAMES)
    invalids = [parser.feed(piece)[1] for piece in pieces]
    for invalid in [*invalids, parser.finish()]:
        assert invalid is None or re.fullmatch(rb"[^\r\n \t\0][^\r\n]{0,3}", invalid)


@given(pieces_of(anything))
def test_an_unfinished_command_is_a_prefix_of_a_known_one(pieces: list[bytes]) -> None:
    """What is kept for the next piece can become a known command, and is never a complete one."""
    parser = Parser(NAMES)
    for piece in pieces:
        parser.feed(piece)
        assert parser.unfinished in {name[:n] for name in NAMES for n in range(4)}


@given(pieces_of(anything), anything)
def test_bytes_behind_an_invalid_command_are_thrown_away(pieces: list[bytes], rest: bytes) -> None:
    """In the same piece; the next piece is parsed from its beginning."""
    parser = Parser(NAMES)
    for piece in pieces:
        parser.feed(piece)
    assert parser.feed(b"\n!" + rest)[1] is not None
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
def test_commands_and_invalid_commands_are_found(
    pieces: list[bytes], commands: list[bytes], invalid: bytes | None
) -> None:
    """At most one command of a stream here is invalid, with the bytes that the log shows."""
    parser = Parser(NAMES)
    fed = [parser.feed(piece) for piece in pieces]
    assert [name for found, _ in fed for name in found] == commands
    assert [word for _, word in fed if word is not None] == ([] if invalid is None else [invalid])


def test_five_bytes_are_separators_and_no_others() -> None:
    """Carriage returns, line feeds, spaces, tabs and NULs are skipped, and nothing else is."""
    skipped = {n for n in range(256) if Parser(NAMES).feed(bytes([n]) + b"time")[0]}
    assert bytes(sorted(skipped)) == b"\0\t\n\r "


def test_an_unfinished_command_waits_for_its_end() -> None:
    """Bytes that can still become a command are neither a command nor invalid."""
    parser = Parser(NAMES)
    assert parser.feed(b"quitti") == ([b"quit"], None)
    assert parser.unfinished == b"ti"
    assert parser.feed(b"ck") == ([b"tick"], None)
    assert parser.unfinished == b""


@pytest.mark.parametrize("prefix", [b"t", b"ti", b"tim"])
def test_the_end_of_input_makes_an_unfinished_command_invalid(prefix: bytes) -> None:
    """It is returned once."""
    parser = Parser(NAMES)
    parser.feed(b"quit\n" + prefix)
    assert parser.finish() == prefix
    assert parser.unfinished == b""
    assert parser.finish() is None


def test_names_may_be_an_iterator() -> None:
    """Which can be read only once."""
    parser = Parser(iter(NAMES))
    assert parser.feed(b"timeti") == ([b"time"], None)
    assert parser.feed(b"ckstop") == ([b"tick", b"stop"], None)


def test_a_reset_forgets_an_unfinished_command() -> None:
    """The next client cannot complete it; the known commands stay the same."""
    parser = Parser(NAMES)
    parser.feed(b"ti")
    parser.reset()
    assert parser.unfinished == b""
    assert parser.feed(b"me") == ([], b"me")
    assert parser.feed(b"stopti") == ([b"stop"], None)


def test_without_commands_everything_is_invalid() -> None:
    """As where the configuration removes all commands."""
    assert Parser([]).feed(b" time") == ([], b"time")


@given(st.binary(max_size=4))
def test_a_logged_command_is_printable_and_short(command: bytes) -> None:
    """The log shows at most 16 characters of printable ASCII."""
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
    r"""Every other byte is shown as ``\xNN``."""
    assert printable(command) == shown
