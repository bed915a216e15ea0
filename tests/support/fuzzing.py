"""Fuzzing: random changes to valid input, and a CPU limit for each input."""

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

from tests.support.processes import Ran, assert_no_traceback
from tetrad import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.fixtures import Figure

SEED_VARIABLE = "TETRAD_TEST_SEED"

CPU_SECONDS_PER_INPUT = 10
"""How much CPU time one input may take."""

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


def seeded_random(figure: Figure) -> random.Random:
    """Return a random generator, and record its seed so that the run can be repeated."""
    seed = int(os.environ.get(SEED_VARIABLE) or secrets.randbits(32))
    figure(f"{SEED_VARIABLE}={seed} repeats it")
    return random.Random(seed)  # noqa: S311 - it must be repeatable


def mutated(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Return the data with one or more random changes; some insert pieces of the corpus."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(_MUTATORS)(rng, data, rng.choice(corpus))
    return data


def _flip(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice((*_ODD_BYTES, rng.randbytes(3))) + data[at:]


def _delete(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    start, end = _range(rng, data)
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    start, end = _range(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _range(rng, data)
    first, last = _range(rng, other)
    return data[:start] + other[first:last] + data[end:]


def _truncate(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _swap_words(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    words = _TOKEN.findall(data) or [b""]
    one, other = rng.randrange(len(words)), rng.randrange(len(words))
    words[one], words[other] = words[other], words[one]
    return b"".join(words)


def _change_word(rng: random.Random, data: bytes, other: bytes) -> bytes:
    words = _TOKEN.findall(data) or [b""]
    candidates = (b"", rng.choice(_ODD_NUMBERS), rng.choice(_TOKEN.findall(other) or [b""]))
    words[rng.randrange(len(words))] = rng.choice(candidates)
    return b"".join(words)


def _change_number(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    numbers = list(re.finditer(rb"\d+", data))
    if not numbers:
        return data
    start, end = rng.choice(numbers).span()
    return data[:start] + rng.choice(_ODD_NUMBERS) + data[end:]


_MUTATORS: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
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


def _range(rng: random.Random, data: bytes) -> tuple[int, int]:
    """Return the ends of a random piece, which is usually short."""
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 64, len(data))))


_NODES: tuple[object, ...] = (
    *(None, True, 0, -1, 1.5, 2**64, 1e300, -1e300, "", "x", "\0", "\x1b[2J", "a\nb", "é" * 300),
    *([], {}, [[]], {"a": {"b": []}}, [None], "9" * 5000),
)


def mutated_tree(rng: random.Random, tree: object) -> object:
    """Return a tree of dictionaries and lists with one node changed, removed or added."""
    if isinstance(tree, dict) and tree and rng.random() < _DESCENT:
        key = rng.choice(list(tree))
        changed = {**tree, key: mutated_tree(rng, tree[key])}
        return changed if rng.random() < _DESCENT else _renamed(rng, changed, key)
    if isinstance(tree, list) and tree and rng.random() < _DESCENT:
        at = rng.randrange(len(tree))
        return [*tree[:at], mutated_tree(rng, tree[at]), *tree[at + rng.randint(0, 2) :]]
    return rng.choice((rng.choice(_NODES), [tree], {"x": tree}, [tree, tree]))


_DESCENT = 0.85


def _renamed(rng: random.Random, tree: dict[object, object], key: object) -> dict[object, object]:
    """Return a mapping without a key, or with another key in its place."""
    rest = {name: value for name, value in tree.items() if name != key}
    name = rng.choice((None, f"{key}x", str(key)[:-1], rng.choice(list(tree)), "\x1b", "1"))
    return rest if name is None else {**rest, name: tree[key]}


def run_in_process(captured: pytest.CaptureFixture[bytes], *arguments: str) -> Ran:
    """Run a command in this process, 100 times faster than in a process of its own."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = (text.decode(errors="backslashreplace") for text in captured.readouterr())
    assert_no_traceback(err)
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, out, err)


def run_batches(rng: random.Random, batch: Callable[[int], int], count: int) -> tuple[int, float]:
    """Run batches in two processes; return the sum of their results and the seconds used."""
    seeds = [rng.getrandbits(32) for _ in range(count)]
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        return sum(pool.map(batch, seeds)), time.monotonic() - began


class InputTooSlow(BaseException):
    """An input took too long. Not an Exception, so that no code under test catches it."""


@contextlib.contextmanager
def time_limit() -> Iterator[Callable[[], None]]:
    """Yield a function that restarts the CPU limit; call it before each input."""

    def give_up(_number: int, _frame: object) -> None:
        raise InputTooSlow

    def begin() -> None:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS_PER_INPUT)

    before = signal.signal(signal.SIGPROF, give_up)
    try:
        yield begin
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
