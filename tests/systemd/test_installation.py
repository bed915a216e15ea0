"""`tetrad install` and `tetrad uninstall` on a running system."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.systemd_service import CONFIGURATION, LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.systemd_service import Service


@pytest.fixture
def reinstalled(service: Service) -> Iterator[Service]:
    """Return the service; it is installed again after the test."""
    yield service
    service.container.do("rm", "-f", CONFIGURATION, f"{CONFIGURATION}.new")
    service.container.do(*service.container.tetrad_command("install"))


def test_a_second_installation_changes_nothing(reinstalled: Service) -> None:
    """With everything installed, there is nothing to do."""
    reinstalled.container.do("rm", "-f", CONFIGURATION)
    first = reinstalled.container.tetrad("install")
    second = reinstalled.container.tetrad("install")
    assert f"wrote {CONFIGURATION}" in first.out
    assert "already installed, nothing changed" in second.out
    assert "wrote" not in second.out


def test_an_installed_service_starts_and_is_removed(reinstalled: Service) -> None:
    """Uninstalling stops the service; configuration, log and user are kept."""
    reinstalled.do("enable", "--now", "tetrad")
    assert reinstalled.serves()
    ran = reinstalled.container.tetrad("uninstall")
    assert ran.status == 0
    assert reinstalled.systemctl("status", "tetrad").status == 4  # no such unit
    assert reinstalled.container.run("pgrep", "-u", "tetrad").out == ""
    for left in (CONFIGURATION, LOG):
        reinstalled.container.do("test", "-e", left)
    reinstalled.container.do("id", "tetrad")
    assert (
        reinstalled.container.tetrad("uninstall").out
        == "tetrad: not installed, nothing to remove\n"
    )
