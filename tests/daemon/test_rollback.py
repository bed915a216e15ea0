"""`tetrad upgrade` to an earlier release, and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tetrad.ipc import fds

if TYPE_CHECKING:
    from tests.support.upgrades import Upgradable


def test_an_earlier_release_gets_a_file_that_it_can_write_to(upgradable: Upgradable) -> None:
    """After a rollback, its next upgrade needs it."""
    served, installed = upgradable()
    installed.publish(("helpers/upgrade_checks.py", '"takes_sealed_file"', '"something"'))
    assert served.tetrad("upgrade").status == 0
    fd = os.open(f"/proc/{served.pid}/fd/{fds.RUNTIME_CONFIG}", os.O_RDWR)
    assert os.write(fd, b"x") == 1
    os.close(fd)
    assert served.tetrad("upgrade").status == 0
