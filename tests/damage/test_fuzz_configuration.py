"""Fuzzed configuration files yield either problems with line and column, or a usable configuration.

Real files are changed byte by byte, word by word and as trees. A file that is accepted must also
work in all later steps: runtime configuration, commands, and a dump that loads back to the same.
"""

from __future__ import annotations

import marshal
import random
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.fuzzing import mutated, mutated_tree, run_batches, seeded_random, time_limit
from tests.support.project import ROOT
from tetrad.config import yaml_reader, yaml_writer
from tetrad.config.model import Config
from tetrad.handler import commands
from tetrad.launch import runtime_config

if TYPE_CHECKING:
    from tests.support.fixtures import Figure

BATCH = 1000

SAMPLE = (ROOT / "etc" / "tetrad.yaml").read_bytes()
"""The installed file, in which most settings are commented out."""

EVERYTHING = re.sub(rb"(?m)^#(?=[a-z ] ?[ a-z-]*[a-z]*:|  )", b"", SAMPLE)
"""The same file with every key enabled."""

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


def a_file(rng: random.Random) -> bytes:
    """Return a mutated configuration file."""
    if rng.random() < 2 / 3:
        return mutated(rng, rng.choice(CORPUS), CORPUS)
    tree = rng.choice(TREES)
    for _ in range(rng.randint(1, 3)):
        tree = mutated_tree(rng, tree)
    style = rng.choice((None, False, True))
    text = yaml.dump(tree, Dumper=DUMPER, default_flow_style=style, allow_unicode=True)
    return text.encode() if rng.random() < 2 / 3 else mutated(rng, text.encode(), CORPUS)


def check(data: bytes) -> bool:
    """Read a file; return whether it was accepted, in which case all later steps must succeed."""
    loaded = yaml_reader.read(data, FILE)
    for problem in loaded.problems:
        assert PROBLEM.fullmatch(problem), (data, problem)
        assert problem.isprintable(), (data, problem)
    if loaded.problems:
        return False
    made = runtime_config.build(loaded, FILE, foreground=False)
    assert marshal.loads(marshal.dumps(dict(made))) == made, data  # noqa: S302 - our own
    for command in commands.make(made["commands"]).values():
        assert command.answer(), data
    again = yaml_reader.read(yaml_writer.dump(loaded.config).encode(), FILE)
    assert (again.problems, again.config) == ([], loaded.config), data
    return True


def batch(seed: int) -> int:
    """Read a batch of mutated files, and return how many were accepted."""
    rng = random.Random(seed)  # noqa: S311 - it must be repeatable
    accepted = 0
    with time_limit() as begin:
        for _ in range(BATCH):
            data = a_file(rng)
            begin()
            accepted += check(data)
    return accepted


def test_a_mutated_file_is_refused_with_a_position_or_usable(figure: Figure) -> None:
    """1,000 mutated files."""
    accepted = batch(seeded_random(figure).getrandbits(32))
    figure(f"{BATCH} files, {accepted} of them accepted")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_100000_mutated_files(figure: Figure) -> None:
    """100,000 mutated files, in two processes."""
    accepted, seconds = run_batches(seeded_random(figure), batch, 100_000 // BATCH)
    figure(f"100000 files, {accepted} of them accepted, in {seconds:.0f} s")
