"""The command lines of tetrad's programs."""

from __future__ import annotations

import pytest

from tests.support.processes import UNDER_COVERAGE
from tetrad.system import exec_commands


@pytest.mark.skipif(UNDER_COVERAGE, reason="coverage starts by a start-up file")
def test_no_variable_turns_isolation_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of coverage neither: a start-up file would run in the master."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.setenv(name, "setup.cfg")
    assert exec_commands.command("master.process")[1:3] == ["-I", "-S"]
