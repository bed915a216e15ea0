"""Programs of the system that some tests need, and that may not be installed."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

_PACKAGES = {
    "cc": "gcc libc6-dev",
    "chattr": "e2fsprogs",
    "dbus-daemon": "dbus",
    "faketime": "faketime",
    "ip": "iproute2",
    "man": "man-db",
    "nc": "netcat-openbsd",
    "nsenter": "util-linux",
    "portablectl": "systemd-container",
    "promtool": "prometheus",
    "setpriv": "util-linux",
    "ss": "iproute2",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
"""The packages of Debian whose names differ from their programs'."""


def missing(*programs: str) -> str:
    """Return which of the programs are not installed, and how to install them; empty if all are."""
    absent = [program for program in programs if shutil.which(program) is None]
    packages = sorted({_PACKAGES.get(program, program) for program in absent})
    return f"{', '.join(absent)}: apt-get install {' '.join(packages)}" if absent else ""


def require(*programs: str) -> None:
    """Skip the test if a program is not installed; in CI it fails, for CI installs all."""
    if reason := missing(*programs):
        assert "CI" not in os.environ, reason
        pytest.skip(reason)


def needs(*programs: str) -> pytest.MarkDecorator:
    """Return the marker with which tests skip if a program is not installed; in CI they fail."""
    reason = missing(*programs)
    return pytest.mark.skipif(bool(reason) and "CI" not in os.environ, reason=reason)


def output_of(program: str, *arguments: str, script: str | None = None) -> str:
    """Return what a program prints; it must exit with status 0 and write no errors."""
    require(program)
    done = subprocess.run(
        [program, *arguments],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
