"""Rotation of the log with logrotate itself, under load."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.daemons import until
from tests.support.session_load import Load
from tests.support.system_programs import require
from tests.support.systemd_service import LOG, LOG_FOLDER

if TYPE_CHECKING:
    from tests.support.systemd_service import Service

ROTATIONS = 3


def test_rotation_under_load_loses_no_line(service: Service) -> None:
    """Every command is in one of the files, in a complete line."""
    require("logrotate")
    service.do("start", "tetrad")
    with Load(service.connect, clients=4) as load:
        for _ in range(ROTATIONS):
            _rotate(service)
            load.wait_for_sessions()
    service.do("stop", "tetrad")
    assert not load.failures
    assert service.commands() == 2 * load.served
    assert "log.lost" not in {event["event"] for event in service.events()}


def test_rotated_files_are_compressed_and_private(service: Service) -> None:
    """The latest rotated file stays uncompressed; other users cannot read the log."""
    require("logrotate")
    service.do("start", "tetrad")
    for _ in range(2):
        _rotate(service)
    folder = service.container.path(LOG_FOLDER)
    assert sorted(os.listdir(folder)) == ["tetrad.log", "tetrad.log.1", "tetrad.log.2.gz"]
    listed = service.container.do("stat", "--format=%U:%G %a", LOG)
    assert listed == "tetrad:tetrad 640\n"


def _rotate(service: Service) -> None:
    """Rotate the log, which must not be empty, and wait until the daemon has reopened it."""
    until(service.events, "a log that is not empty")
    before = _reopened(service)
    service.container.do("logrotate", "--force", "/etc/logrotate.d/tetrad")
    until(lambda: _reopened(service) > before, "the log's new file")


def _reopened(service: Service) -> int:
    return sum(event["event"] == "log.reopened" for event in service.events())
