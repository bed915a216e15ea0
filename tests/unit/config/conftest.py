"""Fixtures of the tests of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of the configuration file."""
    return tmp_path / "tetrad.yaml"
