"""The benchmarks run: what they print is theirs to say, that they print it is tested here."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler: install gcc and libc6-dev"
)


def benchmark(module: str, *arguments: str) -> str:
    """Run one, and return what it prints; a target that is not reached is no failure here."""
    command = [sys.executable, "-m", f"benchmarks{module}", *arguments]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert (ran.returncode in {0, 1}, ran.stderr) == (True, ""), ran.stdout
    return ran.stdout


def test_rows_are_measured_and_written_down(tmp_path: pathlib.Path) -> None:
    """A figure for each server, in a table, in JSON and in a chart."""
    rows = ("sessions", "pipeline", "start")
    options = ("--quick", "--rounds", "2", "--only", "tetrad", "C", "--output", str(tmp_path))
    said = benchmark("", *options, "--rows", *rows)
    written = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["key"] for row in written] == list(rows), said
    for row in written:
        assert all(figure > 0 for figures in row["figures"].values() for figure in figures), row
        assert (row["figures"].keys(), row["failures"]) == ({"tetrad", "C"}, {})
        assert (tmp_path / f"{row['key']}.svg").read_text().startswith("<svg")


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="install haproxy")
def test_a_balancer_is_measured() -> None:
    """What a session and a connection cost it."""
    assert re.fullmatch(
        r"HAProxy, one thread: \d+ µs a session\n"
        r"memory of HAProxy's own: \d+\.\d KiB a connection that is held\n",
        benchmark(".balancer"),
    )


def test_a_fleet_that_loses_a_machine_is_simulated() -> None:
    """Until everybody is in again."""
    said = benchmark(".fleet", "--held", "1000", "--machines", "5")
    assert said.startswith("1 of 5 machines die")
    assert said.count("all in after") == len(said.splitlines()) - 1
