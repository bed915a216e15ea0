"""The counts of logged and lost events in the status."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.support.daemons import until

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon


def has_all_lines(daemon: Daemon) -> bool:
    """Tell whether the count of written events is the number of lines of the log."""
    written: int = daemon.status()["log"]["written"]
    return written == len(daemon.events())


def test_every_line_of_the_log_is_counted(daemon: MakeDaemon) -> None:
    """The count of written events is the number of lines of the file."""
    served = daemon()
    for _ in range(3):
        served.served().quit()
    served.wait_for("client.disconnected", count=3)
    until(lambda: has_all_lines(served), "a count of all lines")


def test_the_next_logger_continues_the_counts(daemon: MakeDaemon) -> None:
    """The counts of a logger that was killed are kept."""
    served = daemon()
    served.served()
    served.wait_for("client.command")
    os.kill(served.logger, signal.SIGKILL)
    served.served()
    served.wait_for("client.command", count=2)
    until(lambda: has_all_lines(served), "a count of all lines")


def test_events_are_lost_on_a_full_disk(daemon: MakeDaemon) -> None:
    """Events that cannot be written are counted as lost, never as written."""
    served = daemon()
    served.wait_for("server.started")
    until(lambda: has_all_lines(served), "a count of all lines")
    before = served.status()["log"]["written"]
    served.fill_disk()
    served.served()
    log = until(
        lambda: (log := served.status()["log"]) and log["lost"] >= 2 and log, "two lost events"
    )
    assert log["written"] == before
