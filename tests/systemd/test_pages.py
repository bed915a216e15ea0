"""The commands for a service in README.md, run as printed under systemd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import markdown_pages as pages
from tests.support.markdown_pages import README
from tests.support.systemd_container import PREFIX
from tests.support.systemd_service import CONFIGURATION, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_container import Container


@pytest.fixture
def machine(container: Container) -> Iterator[Container]:
    """Return the container without an installed service; it is installed again after the test."""
    Service(container).reset()
    container.do(*container.tetrad_command("uninstall"))
    container.do("rm", "-f", CONFIGURATION)
    yield container
    container.run("systemctl", "disable", "--now", "tetrad")
    container.do("rm", "-f", CONFIGURATION)
    container.do(*container.tetrad_command("install"))


def test_the_service_of_the_readme(machine: Container) -> None:
    """After the three commands, the status is the one that is shown.

    The container was made with the first two; it has no network to run them in.
    """
    text = pages.section(README, "## As a service")
    (install,) = pages.blocks_of(text, "sh")
    packages, environment, service = install.text.splitlines()
    assert packages == "apt-get install -y python3-venv"
    assert environment == f"python3 -m venv {PREFIX} && {PREFIX}/bin/pip install -q ."
    machine.do("sh", "-euc", service)
    (console,) = pages.blocks_of(text, "console")
    for step in pages.steps(console.text, "# "):
        found = machine.do("sh", "-euc", step.command)
        assert pages.normalised(found) == pages.normalised(step.output)
