"""Fixtures shared by the damage tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.network_namespaces import Cable, Network
from tests.support.system_programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def network() -> Iterator[Network]:
    """Create a network namespace for the test."""
    _skip_unless_networks()
    made = Network()
    yield made
    made.close()


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Create two connected network namespaces for the test."""
    _skip_unless_networks()
    connected = Cable()
    yield connected
    connected.close()


def _skip_unless_networks() -> None:
    if os.geteuid():
        pytest.skip("only root can make networks: run the tests as root")
    require("ip")
