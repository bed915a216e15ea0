"""Whatever is in the configuration file: a configuration, or problems with their places.

Files that operators have written are spoilt byte by byte, word by word, and as trees. What is read
from them without a problem must be good for everything that comes after: a plan, its commands, and
a dump that loads back to the same.
"""

from __future__ import annotations

import concurrent.futures
import marshal
import multiprocessing
import pathlib
import random
import re
import time
from typing import TYPE_CHECKING

import pytest
import yaml

from tetrad import commands, configfile, plan
from tetrad.config import Config

from .nonsense import misshapen, patience, seeded, spoilt

if TYPE_CHECKING:
    from conftest import Figure

PROJECT = pathlib.Path(__file__).parents[2]
PROCESSES = 2
BATCH = 2500

SAMPLE = (PROJECT / "etc" / "tetrad.yaml").read_bytes()
"""The file that is installed; what it says is commented out."""

EVERYTHING = re.sub(rb"(?m)^#(?=[a-z ] ?[ a-z-]*[a-z]*:|  )", b"", SAMPLE)
"""The same with every key in force."""

CORPUS = [
    SAMPLE,
    EVERYTHING,
    configfile.dump(Config()).encode(),
    b"""\
listen:
  - {address: "::", port: 65000}              # IPv6 and IPv4
  - {address: 127.0.0.1, port: 65007, service: echo}
  - {address: unix:/run/tetrad/tetrad.sock}
daemon: {user: nobody, control_group: nogroup, umask: "027", stop_timeout: 1h30m}
limits: {clients: 500, clients_per_source: 20, rate_per_source: 300/m}
session: {idle_timeout: 2m, max_duration: 0.5, send_timeout: null}
access:
  allow: [127.0.0.0/8, "::1", 192.0.2.0/24, "fe80::/10"]
  deny: [192.0.2.66, "::ffff:192.0.2.0/120"]
commands:
  date: {clock: "%Y-%m-%d", timezone: UTC}
  here: {clock: "%H:%M %Z", timezone: Asia/Seoul}
  gone: {close: "good bye"}
  quit: null
""",
    b"session: &s {idle_timeout: &t 5m, send_timeout: *t}\nlog: {level: !!str info}\n",
    b"%YAML 1.1\n---\n? log\n: ? level\n  : debug\n  ? file\n  : |\n    x\n...\n",
    b'commands: {abcd: {? [close] : x}, efgh: {<<: {close: "\\x1b\\u2028"}}}\n',
]

TREES = [yaml.load(text, yaml.BaseLoader) for text in CORPUS[1:4]]  # noqa: S506 - only text

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

PLACE = re.compile(r"\d+:\d+: ")


def a_file(chance: random.Random) -> bytes:
    """Return a file that somebody might have meant as a configuration."""
    if chance.random() < 2 / 3:
        return spoilt(chance, chance.choice(CORPUS), CORPUS)
    tree = chance.choice(TREES)
    for _ in range(chance.randint(1, 3)):
        tree = misshapen(chance, tree)
    style = chance.choice((None, False, True))
    text = yaml.dump(tree, Dumper=DUMPER, default_flow_style=style, allow_unicode=True)
    return text.encode() if chance.random() < 2 / 3 else spoilt(chance, text.encode(), CORPUS)


def check(file: pathlib.Path, data: bytes) -> bool:
    """Load a file; return whether it was without problems, which then must be true."""
    file.write_bytes(data)
    loaded = configfile.load(str(file))
    for problem in loaded.problems:
        assert problem.startswith(f"{file}:"), (data, problem)
        assert PLACE.match(problem.removeprefix(f"{file}:")), (data, problem)
        assert problem.isprintable(), (data, problem)
    if loaded.problems:
        return False
    made = plan.make(loaded, str(file), foreground=False)
    assert marshal.loads(marshal.dumps(dict(made))) == made, data  # noqa: S302 - our own
    for command in commands.make(made["commands"]).values():
        assert command.answer(), data
    file.write_text(configfile.dump(loaded.config), "utf-8")
    again = configfile.load(str(file))
    assert (again.problems, again.config) == ([], loaded.config), data
    return True


def batch(seed: int, file: pathlib.Path, count: int) -> int:
    """Load so many spoilt files, and return how many of them were without problems."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeated
    good = 0
    with patience() as begin:
        for _ in range(count):
            data = a_file(chance)
            begin()
            good += check(file, data)
    return good


def test_a_spoilt_file_has_problems_or_is_a_configuration(
    tmp_path: pathlib.Path, figure: Figure
) -> None:
    """Thousands of spoilt files are read, or refused with line and column, and at once."""
    good = batch(seeded(figure).getrandbits(32), tmp_path / "t.yaml", BATCH)
    figure(f"{BATCH} files, {good} of them good")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_thousand_spoilt_files(tmp_path: pathlib.Path, figure: Figure) -> None:
    """A hundred thousand spoilt files are read, or refused with line and column, and at once."""
    chance = seeded(figure)
    seeds = [chance.getrandbits(32) for _ in range(100_000 // BATCH)]
    files = [tmp_path / f"{seed}.yaml" for seed in seeds]
    began = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(
        PROCESSES, multiprocessing.get_context("spawn")
    ) as pool:
        good = sum(pool.map(batch, seeds, files, [BATCH] * len(seeds)))
    seconds = time.monotonic() - began
    figure(f"{len(seeds) * BATCH} files, {good} of them good, in {seconds:.0f} s")
