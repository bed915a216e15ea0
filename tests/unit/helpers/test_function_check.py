"""The function check: why a Python function cannot be called as a command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tetrad.helpers import function_check

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_function_check_returns_nothing_for_a_valid_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an error has a text."""
    (tmp_path / "replies.py").write_text("def one(context): return 'x'")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert function_check.problem_of("replies:one") == ""
    assert function_check.problem_of("replies:two") == "module replies has no attribute two"
