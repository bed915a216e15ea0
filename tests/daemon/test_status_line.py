"""The status line of the service manager: problems of the daemon, and lost log lines."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import until
from tests.support.service_manager import Manager

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


class Observed:
    """A daemon, and the status lines that it has sent."""

    def __init__(self, served: Daemon, manager: Manager) -> None:
        self.served = served
        self._manager = manager
        self.status = ""

    def wait_for(self, pattern: str) -> str:
        """Wait for a status line with a match, and return the line."""

        def is_found() -> bool:
            for line in self._manager.receive():
                if line.startswith("STATUS="):
                    self.status = line.removeprefix("STATUS=")
            return re.search(pattern, self.status) is not None

        until(is_found, f"a status with {pattern}")
        return self.status


@pytest.fixture
def observed(prepared: MakeDaemon, tmp_path: pathlib.Path) -> Iterator[Observed]:
    """Return a daemon with a service manager."""
    manager = Manager(str(tmp_path / "notify"))
    served = prepared()
    served.environment |= {"NOTIFY_SOCKET": manager.address}
    yield Observed(served, manager)
    served.finish()
    manager.close()


def test_a_failed_reload_is_shown_until_one_succeeds(observed: Observed) -> None:
    """SIGHUP has no command that could print it."""
    served = observed.served.start()
    with open(served.file, "a", encoding="utf-8") as file:
        file.write("limitz: {}\n")
    served.signal(signal.SIGHUP)
    status = observed.wait_for("limitz")
    place = rf"{re.escape(served.file)}:\d+:\d+: limitz: "
    assert re.search(rf"; last problem at {TIME}: server\.reload_failed: {place}", status)
    served.configure()
    assert served.tetrad("reload").status == 0
    assert "problem" not in observed.wait_for(r"0 clients$")


def test_lost_log_lines_are_shown(observed: Observed) -> None:
    """Their number stays: what the log lacks, it lacks for good."""
    served = observed.served.start()
    served.wait_for("server.started")
    served.fill_disk()
    served.connect().quit()
    observed.wait_for(r"; \d+ log lines lost$")


def test_a_killed_logger_is_shown(observed: Observed) -> None:
    """Its log may have a gap."""
    served = observed.served.start()
    served.wait_for("server.started")  # a logger that has not begun "does not start"
    os.kill(served.logger, signal.SIGKILL)
    observed.wait_for(rf"last problem at {TIME}: log\.lost: why=logger exited unexpectedly")


def test_a_killed_handler_is_shown(observed: Observed) -> None:
    """It is an error of the daemon, not of one client."""
    served = observed.served.start()
    served.allow_lost_handlers = True
    served.served()
    os.kill(served.handlers[0], signal.SIGKILL)
    observed.wait_for(rf"last problem at {TIME}: handler\.lost: handler=\d+, why=handler exited")
