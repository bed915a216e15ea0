"""Programs of the system that some tests need, and that may not be installed."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

PACKAGES = {"man": "man-db"}
"""The packages of Debian whose names differ from their programs'."""


def output_of(program: str, *arguments: str, script: str | None = None) -> str:
    """Return what a program prints; it must exit with status 0 and write no errors.

    Where it is not installed, the test is skipped, but not in CI.
    """
    path = shutil.which(program)
    if path is None:
        missing = f"{program} is not installed: apt-get install {PACKAGES.get(program, program)}"
        assert "CI" not in os.environ, missing
        pytest.skip(missing)
    done = subprocess.run(
        [path, *arguments],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
