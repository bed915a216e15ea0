"""Unit tests fail if they start a process or create a socket."""

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
settings.register_profile("all", parent=settings(), deadline=None)
settings.register_profile("first_set", settings.get_profile("all"), max_examples=20)


def pytest_configure(config: pytest.Config) -> None:
    """Generate fewer examples in the first set than in a run of all tests."""
    if config.getoption("--hypothesis-profile") is None:
        is_first_set = config.option.markexpr == "quick"
        settings.load_profile("first_set" if is_first_set else "all")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Isolate each test of this folder together with its fixtures."""
    with isolated() if FOLDER in item.path.parents else contextlib.nullcontext():
        return (yield)
