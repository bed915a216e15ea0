"""Words to the service manager."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tetrad.system.sd_notify import Notifier

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from conftest import MakeDaemon


class Manager:
    """A service manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(10)

    def hears(self) -> list[str]:
        """Return the next message, by lines."""
        return self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Manager]:
    """Return a manager at a path, and one with an abstract name."""
    path = str(tmp_path / "notify")
    listening = Manager(path if request.param == "path" else f"@tetrad-test{path}")
    yield listening
    listening.close()


def test_readiness_comes_with_a_status(manager: Manager) -> None:
    """That clients are accepted, and how things are, is one message."""
    Notifier(manager.address).ready("127.0.0.1:65000")
    assert manager.hears() == ["READY=1", "STATUS=127.0.0.1:65000"]


def test_each_word_is_what_sd_notify_knows(manager: Manager) -> None:
    """Every other word is a message of its own, in the order in which they were said."""
    notifier = Notifier(manager.address)
    notifier.status("3 clients")
    notifier.watchdog()
    notifier.stopping("waiting for 3 clients")
    heard = [manager.hears() for _ in range(3)]
    assert heard == [
        ["STATUS=3 clients"],
        ["WATCHDOG=1"],
        ["STOPPING=1", "STATUS=waiting for 3 clients"],
    ]


def test_reloading_carries_the_monotonic_clock(manager: Manager) -> None:
    """A manager tells a reload from an earlier one by the clock, in microseconds."""
    before = time.monotonic_ns() // 1000
    Notifier(manager.address).reloading(time.monotonic())
    word, clock = manager.hears()
    assert word == "RELOADING=1"
    key, _, microseconds = clock.partition("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(microseconds) + 1 <= time.monotonic_ns() // 1000 + 1


def test_a_status_is_one_line(manager: Manager) -> None:
    """A status cannot smuggle in another word, and what is not UTF-8 is spelled out."""
    Notifier(manager.address).status("all well\nREADY=1 \udcff")
    assert manager.hears() == ["STATUS=all well READY=1 \\udcff"]


@pytest.mark.parametrize(
    "address", [None, "", "/nowhere/notify", "@nobody", "x" * 200, "vsock:2:1"]
)
def test_nobody_listening_is_no_trouble(address: str | None) -> None:
    """Without a manager, or with one that is gone, words go nowhere and nothing is raised."""
    Notifier(address).ready("here")


def test_only_an_address_is_somebody() -> None:
    """Whoever has nobody to speak to can save the trouble of finding the words."""
    assert Notifier("/run/systemd/notify").is_heard
    assert not Notifier(None).is_heard


def test_a_manager_that_does_not_read_is_not_waited_for(manager: Manager) -> None:
    """A full queue drops words instead of blocking the one who speaks."""
    notifier = Notifier(manager.address)
    for _ in range(10_000):
        notifier.watchdog()
    assert manager.hears() == ["WATCHDOG=1"]


def test_no_descriptor_is_left(manager: Manager) -> None:
    """Speaking leaves nothing open that children would have to close."""
    before = os.listdir("/proc/self/fd")
    Notifier(manager.address).watchdog()
    assert os.listdir("/proc/self/fd") == before


def test_each_change_of_the_clients_is_told(manager: Manager, prepared: MakeDaemon) -> None:
    """The status follows the number of clients, again and again, and is not told twice."""
    served = prepared()
    served.environment |= {"NOTIFY_SOCKET": manager.address}
    served.start()
    told: list[str] = []

    def hears_of(clients: str) -> None:
        while not told or not told[-1].endswith(f"; {clients}"):
            told.extend(line for line in manager.hears() if line.startswith("STATUS="))

    hears_of("0 clients")
    for _ in range(2):
        with served.served().socket:
            hears_of("1 client")
        hears_of("0 clients")
    served.stop()
    assert [line.rpartition("; ")[2] for line in told] == [
        "0 clients",
        *["1 client", "0 clients"] * 2,
    ]


def test_it_imports_next_to_nothing() -> None:
    """The master pays in every fork for what this module imports."""
    code = (
        "import os, sys, _socket; before = set(sys.modules); import tetrad.system.sd_notify; "
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    imported = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert imported.split() == ["__future__", "tetrad", "tetrad.system", "tetrad.system.sd_notify"]
