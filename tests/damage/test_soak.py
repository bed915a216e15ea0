"""Very many sessions, after which the daemon uses the same resources as before."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.project import ROOT
from tests.support.system_programs import needs

if TYPE_CHECKING:
    from tests.support.fixtures import Figure


SESSIONS = 50_000
"""For a million: `python -m benchmarks.soak`."""


@pytest.mark.long
@pytest.mark.timeout(600)
@needs("cc")
def test_many_sessions_leak_nothing(figure: Figure) -> None:
    """The same descriptors, processes and memory, no zombie, and a complete log."""
    command = [sys.executable, "-m", "benchmarks.soak", f"--sessions={SESSIONS}", "--seconds=240"]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    figure(ran.stdout.splitlines()[-1])
