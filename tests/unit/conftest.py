"""Unit tests fail if they start a process, create a socket, or sleep."""

from __future__ import annotations

import contextlib
import pathlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Generator

FOLDER = pathlib.Path(__file__).parent

# A busy machine can take long for any example.
settings.register_profile("no_deadline", parent=settings(), deadline=None)
settings.load_profile("no_deadline")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Isolate each test of this folder together with its fixtures."""
    with isolated() if FOLDER in item.path.parents else contextlib.nullcontext():
        return (yield)
