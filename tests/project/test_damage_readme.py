"""The tables of tests/damage/README.md name tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.support.project import ROOT

pytestmark = pytest.mark.quick

TESTS = ROOT / "tests"

SECTIONS = ("Public bug reports, tried here", "Situations, and the tests that hold them")
"""The sections that name each test in full."""

_NAME = re.compile(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`")
_FILE = re.compile(r"(?:tests/)?((?:daemon|damage|hostile|integration|systemd|unit)/[\w/]+\.py)")


def test_the_tables_name_tests_that_exist() -> None:
    """And files, by their paths below `tests`."""
    text = (TESTS / "damage" / "README.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    tables = "".join(sections[name] for name in SECTIONS)
    code = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    names = _NAME.findall(tables)
    assert len(names) > len(SECTIONS)
    assert [name for name in names if f"def test_{name}(" not in code] == []
    assert [name for name in _FILE.findall(tables) if not (TESTS / name).exists()] == []
