"""Fixtures shared by the fleet tests."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet_site import Site, Switch
from tests.support.system_programs import require

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon


@pytest.fixture
def switch() -> Iterator[Switch]:
    """Create a network switch."""
    if os.geteuid():
        pytest.skip("only root can create network namespaces")
    require("ip", "haproxy")
    with contextlib.closing(Switch()) as made:
        yield made


@pytest.fixture
def site(switch: Switch, prepared: MakeDaemon, tmp_path: pathlib.Path) -> Iterator[Site]:
    """Start three tetrads and a balancer, and wait until all have passed a check."""
    with contextlib.closing(Site(switch, prepared, str(tmp_path))) as made:
        made.balancer.wait_until_open()
        yield made
