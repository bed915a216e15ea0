"""Unit tests fail if they start a process, create a socket, or sleep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Isolate each test together with its fixtures."""
    with isolated():
        return (yield)
