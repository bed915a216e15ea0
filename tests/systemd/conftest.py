"""Fixtures of the systemd tests: one container for all of them, and a reset service for each."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.project import ROOT
from tests.support.system_programs import require
from tests.support.systemd_container import BOOT_SECONDS, Container
from tests.support.systemd_service import Service

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


BUILD_SECONDS = 120.0

WRITE_TRANSCRIPT = "--write-transcript"

_HERE = os.path.dirname(__file__)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of test_transcript.py."""
    text = "write tests/systemd/README.md from the output of test_transcript.py"
    parser.addoption(WRITE_TRANSCRIPT, action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that selects these tests."""
    config.addinivalue_line("markers", "systemd: boots a container; needs root and systemd-nspawn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder; the first one waits for the container."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.systemd)
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS + BOOT_SECONDS))


@pytest.fixture(scope="session")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Boot a container in which this checkout is installed, or skip the test."""
    if os.geteuid():
        pytest.skip("only root can boot a container")
    require("systemd-nspawn", "nsenter", "unshare", "setpriv")
    folder = tmp_path_factory.mktemp("systemd")
    with Container(str(folder), _wheel(folder)) as booted:
        booted.do(*booted.tetrad_command("install"))
        yield booted


@pytest.fixture
def service(container: Container) -> Iterator[Service]:
    """Return the service, stopped, with its installed settings."""
    fresh = Service(container)
    fresh.reset()
    yield fresh
    fresh.finish()


def _wheel(folder: pathlib.Path) -> str:
    """Build the wheel that an operator would install."""
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    build = [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)]
    subprocess.run(build, check=True, timeout=BUILD_SECONDS)
    return str(next(folder.glob("*.whl")))
