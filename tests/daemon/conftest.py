"""Fixtures shared by the tests of the real daemon: daemons that run a copy of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemons import Daemon
from tests.support.installations import Installation, compile_package
from tests.support.upgrades import ECHO, Edit, Upgradable

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon


@pytest.fixture(scope="session")
def compiled_package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a compiled copy of the package, from which others are made."""
    return compile_package(str(tmp_path_factory.mktemp("compiled")))


@pytest.fixture
def installed(tmp_path: pathlib.Path, compiled_package: str) -> Installation:
    """Return an installation of the test's own."""
    return Installation(str(tmp_path), compiled_package)


@pytest.fixture
def upgradable(prepared: MakeDaemon, installed: Installation) -> Upgradable:
    """Return a function that starts a daemon whose code can be replaced."""

    def make(*edits: Edit, **settings: Any) -> tuple[Daemon, Installation]:  # noqa: ANN401
        if edits:
            installed.publish(*edits)
        served = prepared(**settings)
        served.environment |= installed.environment
        return served.start(), installed

    return make


@pytest.fixture(scope="module")
def _upgradable_of_module(
    tmp_path_factory: pytest.TempPathFactory, compiled_package: str
) -> Iterator[tuple[Daemon, Installation]]:
    folder = str(tmp_path_factory.mktemp("shared"))
    installed = Installation(folder, compiled_package)
    served = Daemon(folder, {"listen": ECHO})
    served.environment |= installed.environment
    served.start()
    yield served, installed
    served.finish()


@pytest.fixture
def shared_upgradable(
    _upgradable_of_module: tuple[Daemon, Installation],
) -> tuple[Daemon, Installation]:
    """Return a daemon of both services, and its installation, that tests of the module share.

    A test gets it without sessions, and leaves it running code without an edit.
    """
    served, _ = _upgradable_of_module
    served.hand_over()
    return _upgradable_of_module
