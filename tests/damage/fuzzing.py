"""Nonsense: what somebody wrote, spoilt at random; and a watch on those who have to read it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import random
import re
import secrets
import signal
import time
from typing import TYPE_CHECKING

import pytest

from processes import Ran, complain_of_defects
from tetrad import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from conftest import Figure

SEED_VARIABLE = "TETRAD_TEST_SEED"

PATIENCE_CPU_SECONDS = 10
"""How long one input may be worked at; the time of other processes does not count."""

_TOKEN = re.compile(rb"\w+|\s+|.", re.DOTALL)

_ODD_BYTES = (
    *(bytes([code]) for code in (0x00, 0x07, 0x0A, 0x0D, 0x1B, 0x7F, 0x80, 0xC3, 0xFF)),
    "\u0660".encode(),
    "\u2028".encode(),
    "\ufeff".encode(),
    "\U0001f4a3".encode(),
)

_ODD_NUMBERS = (
    *(b"0", b"-1", b"00", b"1e999", b"-0.0", b"nan", b"inf", b".", b"0x10", b"1_0"),
    *(b"%d" % number for number in (2**31, 2**32 - 1, 2**63, 2**64, 10**18, 10**40)),
    b"9" * 400,
    b"9" * 5000,
)


def seeded(figure: Figure) -> random.Random:
    """Return a source of chance whose seed is told, so that it can be had once more."""
    seed = int(os.environ.get(SEED_VARIABLE) or secrets.randbits(32))
    figure(f"{SEED_VARIABLE}={seed} repeats it")
    return random.Random(seed)  # noqa: S311 - it is to be repeated


def spoilt(chance: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Return the data with a few bytes or words of it changed; the corpus is what else there is."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        data = chance.choice(_WAYS)(chance, data, chance.choice(corpus))
    return data


def _flip(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _insert(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + chance.choice((*_ODD_BYTES, chance.randbytes(3))) + data[at:]


def _delete(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    start, end = _range(chance, data)
    return data[:start] + data[end:]


def _repeat(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    start, end = _range(chance, data)
    return data[:end] + data[start:end] * chance.choice((1, 1, 2, 50)) + data[end:]


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _range(chance, data)
    first, last = _range(chance, other)
    return data[:start] + other[first:last] + data[end:]


def _truncate(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    return data[: chance.randint(0, len(data))]


def _swap_words(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    words = _TOKEN.findall(data) or [b""]
    one, other = chance.randrange(len(words)), chance.randrange(len(words))
    words[one], words[other] = words[other], words[one]
    return b"".join(words)


def _change_word(chance: random.Random, data: bytes, other: bytes) -> bytes:
    words = _TOKEN.findall(data) or [b""]
    candidates = (b"", chance.choice(_ODD_NUMBERS), chance.choice(_TOKEN.findall(other) or [b""]))
    words[chance.randrange(len(words))] = chance.choice(candidates)
    return b"".join(words)


def _change_number(chance: random.Random, data: bytes, _other: bytes) -> bytes:
    numbers = list(re.finditer(rb"\d+", data))
    if not numbers:
        return data
    start, end = chance.choice(numbers).span()
    return data[:start] + chance.choice(_ODD_NUMBERS) + data[end:]


_WAYS: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    _flip,
    _insert,
    _delete,
    _repeat,
    _splice,
    _truncate,
    _swap_words,
    _change_word,
    _change_number,
)


def _range(chance: random.Random, data: bytes) -> tuple[int, int]:
    """Return where a piece begins and ends, which is short more often than not."""
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.choice((1, 2, 4, 16, 64, len(data))))


_NODES: tuple[object, ...] = (
    *(None, True, 0, -1, 1.5, 2**64, 1e300, -1e300, "", "x", "\0", "\x1b[2J", "a\nb", "é" * 300),
    *([], {}, [[]], {"a": {"b": []}}, [None], "9" * 5000),
)


def misshapen(chance: random.Random, tree: object) -> object:
    """Return a tree of dictionaries and lists in which one node is another, gone, or too many."""
    if isinstance(tree, dict) and tree and chance.random() < _DESCENT:
        key = chance.choice(list(tree))
        changed = {**tree, key: misshapen(chance, tree[key])}
        return changed if chance.random() < _DESCENT else _renamed(chance, changed, key)
    if isinstance(tree, list) and tree and chance.random() < _DESCENT:
        at = chance.randrange(len(tree))
        return [*tree[:at], misshapen(chance, tree[at]), *tree[at + chance.randint(0, 2) :]]
    return chance.choice((chance.choice(_NODES), [tree], {"x": tree}, [tree, tree]))


_DESCENT = 0.85


def _renamed(
    chance: random.Random, tree: dict[object, object], key: object
) -> dict[object, object]:
    """Return a mapping without a key, or with another one in its place."""
    rest = {name: value for name, value in tree.items() if name != key}
    name = chance.choice((None, f"{key}x", str(key)[:-1], chance.choice(list(tree)), "\x1b", "1"))
    return rest if name is None else {**rest, name: tree[key]}


def tetrad(captured: pytest.CaptureFixture[bytes], *arguments: str) -> Ran:
    """Run a command in this process, which is a hundred times faster than in one of its own."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = (text.decode(errors="backslashreplace") for text in captured.readouterr())
    complain_of_defects(err)
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, out, err)


def in_batches(chance: random.Random, batch: Callable[[int], int], count: int) -> tuple[int, float]:
    """Work on so many batches in two processes; return the sum, and the seconds it took."""
    seeds = [chance.getrandbits(32) for _ in range(count)]
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        return sum(pool.map(batch, seeds)), time.monotonic() - began


class TooSlow(BaseException):
    """Nothing may take that long; no `except Exception` gets in the way of it."""


@contextlib.contextmanager
def patience() -> Iterator[Callable[[], None]]:
    """Give what has to be called before each input, which then has its share of time, or fails."""

    def give_up(_number: int, _frame: object) -> None:
        raise TooSlow

    def begin() -> None:
        signal.setitimer(signal.ITIMER_PROF, PATIENCE_CPU_SECONDS)

    before = signal.signal(signal.SIGPROF, give_up)
    try:
        yield begin
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
