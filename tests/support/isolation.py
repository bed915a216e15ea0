"""Keeps unit tests in their own process: no child process, no socket.

Threads, pipes and files are allowed.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FORBIDDEN = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "socket.__new__",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "subprocess.Popen",
}
"""Audit events of the interpreter, which the calls raise before they have an effect."""


class _Guard:
    """An audit hook. It cannot be removed, so it is switched on and off."""

    def __init__(self) -> None:
        self.is_on = False
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, _arguments: tuple[object, ...]) -> None:
        if self.is_on and event in FORBIDDEN:
            pytest.fail(f"{event} in a unit test: move the test to tests/integration")


_guard = _Guard()


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Fail the test at a call that is FORBIDDEN."""
    _guard.is_on = True
    try:
        yield
    finally:
        _guard.is_on = False
