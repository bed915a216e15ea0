"""`daemon.control_group`: a group that may read the status, but not reload or upgrade."""

from __future__ import annotations

import grp
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support.daemons import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Ran

GROUP = "daemon"


@pytest.fixture(scope="module")
def grouped(shared_nobodys_folder: str) -> Iterator[Daemon]:
    """Return a daemon that members of the group may ask."""
    served = Daemon(shared_nobodys_folder, {"daemon": {"control_group": GROUP}})
    try:
        yield served.start()
    finally:
        served.finish()


def run_as_member(served: Daemon, *words: str) -> Ran:
    """Run a command as a user whose only permission is the group."""
    return served.tetrad(*words, user="nobody", group=GROUP, extra_groups=[])


def test_the_socket_has_mode_0600_by_default(daemon: MakeDaemon) -> None:
    """Without the key no other user can connect."""
    served = daemon()
    mode = os.stat(os.path.join(served.folder, "control.sock")).st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_the_socket_belongs_to_the_group(daemon: MakeDaemon) -> None:
    """With the key its members can connect too."""
    group = grp.getgrgid(os.getegid()).gr_name
    served = daemon(daemon={"control_group": group})
    status = os.stat(os.path.join(served.folder, "control.sock"))
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, os.getegid())


def test_a_member_may_read_the_status(grouped: Daemon) -> None:
    """A member of the group is neither root nor daemon.user."""
    ran = run_as_member(grouped, "status", "--json")
    assert ran.status == 0
    assert f'"pid": {grouped.pid}' in ran.out


@pytest.mark.parametrize("request_", ["reload", "upgrade"])
def test_a_member_may_not_reload_or_upgrade(grouped: Daemon, request_: str) -> None:
    """The request is refused with a message, and has no effect."""
    ran = run_as_member(grouped, request_)
    assert ran.status not in {0, 78}
    assert f"only root and the daemon's user may request {request_}" in ran.err
    sessions = len(grouped.events("client.disconnected"))
    assert grouped.connect().quit() == b"quit"
    grouped.wait_for("client.disconnected", count=sessions + 1)
    assert not grouped.events("server.reloaded") + grouped.events("server.upgraded")
    assert grouped.status()["pid"] == grouped.pid
