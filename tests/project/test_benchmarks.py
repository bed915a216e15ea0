"""The benchmarks run and print figures; the figures themselves are not checked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.project import ROOT
from tests.support.system_programs import needs

if TYPE_CHECKING:
    import pathlib

pytestmark = needs("cc")


def benchmark(module: str, *arguments: str) -> str:
    """Run a benchmark, and return its output. A missed target is no failure here."""
    command = [sys.executable, "-m", f"benchmarks{module}", *arguments]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert (ran.returncode in {0, 1}, ran.stderr) == (True, ""), ran.stdout
    return ran.stdout


def test_rows_are_measured_and_written(tmp_path: pathlib.Path) -> None:
    """Each server gets a figure in the JSON file and in the chart."""
    rows = ("sessions", "pipeline", "start")
    options = ("--quick", "--rounds", "2", "--only", "tetrad", "C", "--output", str(tmp_path))
    output = benchmark("", *options, "--rows", *rows)
    written = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["key"] for row in written] == list(rows), output
    for row in written:
        assert all(figure > 0 for figures in row["figures"].values() for figure in figures), row
        assert (row["figures"].keys(), row["failures"]) == ({"tetrad", "C"}, {})
        assert (tmp_path / f"{row['key']}.svg").read_text().startswith("<svg")


@needs("haproxy")
def test_a_balancer_is_measured() -> None:
    """It prints the CPU time of a session and the memory of a connection."""
    assert re.fullmatch(
        r"HAProxy, one thread: \d+ µs per session\n"
        r"memory of HAProxy: \d+\.\d KiB per held connection\n",
        benchmark(".balancer", "--quick"),
    )


def test_a_fleet_with_a_failed_machine_is_simulated() -> None:
    """It prints a line for each way to reconnect."""
    output = benchmark(".fleet", "--held", "500", "--load", "0.02", "--machines", "5")
    assert output.startswith("1 of 5 machines fail")
    assert output.count("all accepted after") == len(output.splitlines()) - 1
