"""Requests over a daemon's control socket, without starting a program for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from tests.support.processes import TIMEOUT_SECONDS
from tetrad.ipc import control_client
from tetrad.ipc.control_messages import Reloaded, Upgraded

if TYPE_CHECKING:
    from tests.support.daemons import Daemon

T = TypeVar("T")


def request_reload(daemon: Daemon) -> Reloaded:
    """Request a reload, as `tetrad reload` does; return its result."""
    return _ask(daemon, "reload", Reloaded)


def request_upgrade(daemon: Daemon) -> Upgraded:
    """Request an upgrade, as `tetrad upgrade` does; return its result."""
    return _ask(daemon, "upgrade", Upgraded)


def reload(daemon: Daemon) -> dict[str, str]:
    """Reload; fail if that fails, and return the changes."""
    outcome = request_reload(daemon)
    assert outcome.changes is not None, outcome.errors
    return outcome.changes


def _ask(daemon: Daemon, request: str, kind: type[T]) -> T:
    path = os.path.join(daemon.folder, daemon.settings["daemon"]["control"])
    return control_client.ask(path, request, kind, TIMEOUT_SECONDS)
