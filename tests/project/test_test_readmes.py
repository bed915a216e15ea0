"""The tables of tests/damage/README.md and tests/hostile/README.md name tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.support.project import ROOT

pytestmark = pytest.mark.quick

TESTS = ROOT / "tests"

SECTIONS = ("Public bug reports, tried here", "Situations, and the tests that hold them")
"""The sections of the first page that name each test in full; the second does so throughout."""

_NAME = re.compile(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`")
_FILE = re.compile(r"(?:tests/)?((?:daemon|damage|hostile|integration|systemd|unit)/[\w/]+\.py)")


def test_the_tables_name_tests_that_exist() -> None:
    """And files, by their paths below `tests`, or by their names alone."""
    text = (TESTS / "damage" / "README.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    attacks = (TESTS / "hostile" / "README.md").read_text(encoding="utf-8")
    tables = "".join([*(sections[name] for name in SECTIONS), attacks])
    code = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    names = _NAME.findall(tables)
    assert len(names) > len(SECTIONS)
    assert [name for name in names if f"def test_{name}(" not in code] == []
    assert [name for name in _FILE.findall(tables) if not (TESTS / name).exists()] == []
    alone = re.findall(r"`(test_\w+\.py)`", attacks)
    assert alone
    assert [name for name in alone if not (TESTS / "hostile" / name).exists()] == []
