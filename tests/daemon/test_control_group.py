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


def test_every_user_can_connect(daemon: MakeDaemon) -> None:
    """Whatever the umask of the start: the daemon decides by the peer's credentials."""
    before = os.umask(0o077)
    try:
        served = daemon(daemon={"control_group": GROUP})
    finally:
        os.umask(before)
    status = os.stat(os.path.join(served.folder, "control.sock"))
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o666, os.getegid())


def test_a_member_may_read_the_status(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """A member is neither root nor daemon.user; the group may be a supplementary one."""
    served = daemon(folder=nobodys_folder, daemon={"control_group": GROUP})
    other = {"user": "nobody", "group": "nogroup", "extra_groups": [GROUP]}
    for ran in (
        run_as_member(served, "status", "--json"),
        served.tetrad("status", "--json", **other),
    ):
        assert ran.status == 0, ran
        assert f'"pid": {served.pid}' in ran.out


def test_a_user_outside_the_group_is_told_so(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """The exit status is 4, and the answer names the key."""
    served = daemon(folder=nobodys_folder, daemon={"control_group": GROUP})
    ran = served.tetrad("status", user="nobody", group="nogroup", extra_groups=[])
    assert (ran.status, ran.out) == (4, "")
    assert f"nor in daemon.control_group (id {grp.getgrnam(GROUP).gr_gid})" in ran.err


@pytest.mark.parametrize("request_", ["reload", "upgrade"])
def test_a_member_may_not_reload_or_upgrade(grouped: Daemon, request_: str) -> None:
    """The request is refused with a message, and has no effect."""
    ran = run_as_member(grouped, request_)
    assert ran.status == 4
    assert f"only root and the daemon's user may request {request_}" in ran.err
    sessions = len(grouped.events("client.disconnected"))
    assert grouped.connect().quit() == b"quit"
    grouped.wait_for("client.disconnected", count=sessions + 1)
    assert not grouped.events("server.reloaded") + grouped.events("server.upgraded")
    assert grouped.status()["pid"] == grouped.pid
