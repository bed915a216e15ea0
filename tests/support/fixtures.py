"""The types of the fixtures that all tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tests.support.daemons import Daemon


class Figure(Protocol):
    """Records a measured value, which pytest prints after all tests."""

    def __call__(self, text: str) -> None:
        """Record it."""
        ...


class MakeDaemon(Protocol):
    """Creates a daemon with these settings, in `folder` or in a new folder."""

    def __call__(self, *, folder: str = "", **settings: object) -> Daemon:
        """Create it."""
        ...
