"""What a daemon reports to its service manager."""

from __future__ import annotations

import concurrent.futures
import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import Daemon
from tests.support.service_manager import KINDS, Manager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future


def statuses_of_two_sessions(daemon: Daemon, manager: Manager) -> list[str]:
    """Run a daemon with two sessions, one after the other; return the status lines it reports."""
    daemon.environment |= {"NOTIFY_SOCKET": manager.address}
    daemon.start()
    lines: list[str] = []

    def wait_for_status(clients: str) -> None:
        while not lines or not lines[-1].endswith(f"; {clients}"):
            lines.extend(line for line in manager.receive() if line.startswith("STATUS="))

    wait_for_status("0 clients")
    for _ in range(2):
        with daemon.served().socket:
            wait_for_status("1 client")
        wait_for_status("0 clients")
    daemon.stop()
    return lines


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[list[str]]]]:
    """Return the status lines of a daemon for each kind of service manager.

    The daemons run at the same time, because a status line is sent a second after a change.
    """
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(KINDS)))
        futures = {}
        for kind in KINDS:
            folder = tmp_path_factory.mktemp(kind)
            manager = stack.enter_context(contextlib.closing(Manager(str(folder / "notify"), kind)))
            daemon = Daemon(str(folder), {})
            stack.callback(daemon.finish)
            futures[kind] = pool.submit(statuses_of_two_sessions, daemon, manager)
        concurrent.futures.wait(futures.values())
        yield futures


@pytest.mark.parametrize("kind", KINDS)
def test_the_status_has_the_number_of_clients(
    reported: dict[str, Future[list[str]]], kind: str
) -> None:
    """It is sent after each change, and once only."""
    assert [line.rpartition("; ")[2] for line in reported[kind].result()] == [
        "0 clients",
        *["1 client", "0 clients"] * 2,
    ]
