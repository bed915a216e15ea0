"""The zone of the machine is set to another one while a daemon runs."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER_BYTES
from tests.support.processes import until
from tests.support.system_programs import require

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

FILL = b"." * (ANSWER_BYTES - 5)
FORMAT = "%z" + FILL.decode()
NEW = b"+0900" + FILL
SEOUL = "/usr/share/zoneinfo/Asia/Seoul"


@pytest.fixture
def apart(prepared: MakeDaemon) -> Daemon:
    """Return a daemon with a file system of its own, in the zone of the machine. Needs root."""
    if os.geteuid() or not os.path.isfile(SEOUL):
        pytest.skip("needs root and the time zone database")
    require("unshare", "nsenter")
    daemon = prepared(
        handlers={"spare": 1, "clients_each": 2},
        commands={"zone": {"clock": FORMAT}, "utc_": {"clock": FORMAT, "timezone": "UTC"}},
    )
    daemon.environment.pop("TZ", None)
    output = os.path.join(daemon.folder, "output")
    daemon.run(output, under=["unshare", "--mount"])
    daemon.wait_for("server.listening")
    daemon.ports = [daemon.events("server.listening")[0]["port"]]
    return daemon


def test_clocks_follow_the_zone_of_the_machine(apart: Daemon) -> None:
    """In sessions that run, in handlers that wait for a client, and in new ones; no reload."""
    old = apart.served()
    assert old.ask(b"zone") != NEW
    mount = ["nsenter", "-t", str(apart.pid), "-m", "mount", "--bind", SEOUL, "/etc/localtime"]
    subprocess.run(mount, check=True)
    until(lambda: old.ask(b"zone") == NEW, "the new zone")
    assert [apart.connect().ask(b"zone") for _ in range(4)] == [NEW] * 4
    assert old.ask(b"utc_") == b"+0000" + FILL
