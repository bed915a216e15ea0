"""Whatever is in the configuration file: a configuration, or problems with their places.

Files that operators have written are spoilt byte by byte, word by word, and as trees. What is read
from them without a problem must be good for everything that comes after: a plan, its commands, and
a dump that loads back to the same.
"""

from __future__ import annotations

import marshal
import pathlib
import random
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tetrad.config import yaml_reader, yaml_writer
from tetrad.config.model import Config
from tetrad.handler import commands
from tetrad.launch import runtime_config

from .fuzzing import in_batches, misshapen, patience, seeded, spoilt

if TYPE_CHECKING:
    from conftest import Figure

PROJECT = pathlib.Path(__file__).parents[2]
BATCH = 2500

SAMPLE = (PROJECT / "etc" / "tetrad.yaml").read_bytes()
"""The file that is installed; what it says is commented out."""

EVERYTHING = re.sub(rb"(?m)^#(?=[a-z ] ?[ a-z-]*[a-z]*:|  )", b"", SAMPLE)
"""The same with every key in force."""

CORPUS = [
    SAMPLE,
    EVERYTHING,
    yaml_writer.dump(Config()).encode(),
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

FILE = "/etc/tetrad/tetrad.yaml"

PROBLEM = re.compile(rf"{re.escape(FILE)}:[1-9]\d*:[1-9]\d*: \S.*")


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


def check(data: bytes) -> bool:
    """Read a file; return whether it was without problems, which then must be true."""
    loaded = yaml_reader.read(data, FILE)
    for problem in loaded.problems:
        assert PROBLEM.fullmatch(problem), (data, problem)
        assert problem.isprintable(), (data, problem)
    if loaded.problems:
        return False
    made = runtime_config.make(loaded, FILE, foreground=False)
    assert marshal.loads(marshal.dumps(dict(made))) == made, data  # noqa: S302 - our own
    for command in commands.make(made["commands"]).values():
        assert command.answer(), data
    again = yaml_reader.read(yaml_writer.dump(loaded.config).encode(), FILE)
    assert (again.problems, again.config) == ([], loaded.config), data
    return True


def batch(seed: int) -> int:
    """Read so many spoilt files, and return how many of them were without problems."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeated
    good = 0
    with patience() as begin:
        for _ in range(BATCH):
            data = a_file(chance)
            begin()
            good += check(data)
    return good


def test_a_spoilt_file_has_problems_or_is_a_configuration(figure: Figure) -> None:
    """Thousands of spoilt files are read, or refused with line and column, and at once."""
    good = batch(seeded(figure).getrandbits(32))
    figure(f"{BATCH} files, {good} of them good")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_thousand_spoilt_files(figure: Figure) -> None:
    """A hundred thousand spoilt files are read, or refused with line and column, and at once."""
    good, seconds = in_batches(seeded(figure), batch, 100_000 // BATCH)
    figure(f"100000 files, {good} of them good, in {seconds:.0f} s")
