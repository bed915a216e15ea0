"""Notifications to the service manager."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.service_manager import KINDS, Manager
from tetrad.system.sd_notify import Notifier

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture(params=KINDS)
def manager(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Manager]:
    """Return a manager with a path, and one with an abstract name."""
    manager = Manager(str(tmp_path / "notify"), request.param)
    yield manager
    manager.close()


def test_readiness_has_a_status(manager: Manager) -> None:
    """READY and the status are one message."""
    Notifier(manager.address).ready("127.0.0.1:65000")
    assert manager.receive() == ["READY=1", "STATUS=127.0.0.1:65000"]


def test_notifications_are_those_of_sd_notify(manager: Manager) -> None:
    """Each is one message, in order."""
    notifier = Notifier(manager.address)
    notifier.status("3 clients")
    notifier.watchdog()
    notifier.stopping("waiting for 3 clients")
    assert [manager.receive() for _ in range(3)] == [
        ["STATUS=3 clients"],
        ["WATCHDOG=1"],
        ["STOPPING=1", "STATUS=waiting for 3 clients"],
    ]


def test_reloading_has_the_monotonic_clock(manager: Manager) -> None:
    """The manager distinguishes reloads by the time in microseconds."""
    before = time.monotonic_ns() // 1000
    Notifier(manager.address).reloading(time.monotonic())
    state, clock = manager.receive()
    assert state == "RELOADING=1"
    key, _, microseconds = clock.partition("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(microseconds) + 1 <= time.monotonic_ns() // 1000 + 1


def test_a_status_is_one_line(manager: Manager) -> None:
    """A line feed cannot add another field; bytes that are not UTF-8 are escaped."""
    Notifier(manager.address).status("all well\nREADY=1 \udcff")
    assert manager.receive() == ["STATUS=all well READY=1 \\udcff"]


@pytest.mark.parametrize(
    "address", [None, "", "/nowhere/notify", "@nobody", "x" * 200, "vsock:2:1"]
)
def test_without_a_manager_nothing_is_raised(address: str | None) -> None:
    """No address, an address without a reader, and an invalid one are ignored."""
    Notifier(address).ready("here")


def test_a_notifier_with_an_address_is_enabled() -> None:
    """The master computes no status for one without."""
    assert Notifier("/run/systemd/notify").is_enabled
    assert not Notifier(None).is_enabled


def test_a_manager_that_does_not_read_blocks_nothing(manager: Manager) -> None:
    """Notifications are dropped if its queue is full."""
    notifier = Notifier(manager.address)
    for _ in range(10_000):
        notifier.watchdog()
    assert manager.receive() == ["WATCHDOG=1"]


def test_no_descriptor_stays_open(manager: Manager) -> None:
    """Children would have to close it."""
    before = os.listdir("/proc/self/fd")
    Notifier(manager.address).watchdog()
    assert os.listdir("/proc/self/fd") == before


def test_the_module_imports_one_c_module() -> None:
    """Every module that the master loads makes each fork slower."""
    code = (
        "import os, sys, _socket; before = set(sys.modules); import tetrad.system.sd_notify; "
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    imported = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert imported.split() == ["__future__", "tetrad", "tetrad.system", "tetrad.system.sd_notify"]
