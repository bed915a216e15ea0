"""`daemon.control_group`: a group whose members may read the status and nothing else."""

from __future__ import annotations

import grp
import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import MakeDaemon
    from daemons import Daemon
    from processes import Ran

GROUP = "daemon"


def run_as_member(served: Daemon, *words: str) -> Ran:
    """Run a command as a user who is only a member of the group."""
    return served.tetrad(*words, user="nobody", group=GROUP, extra_groups=[])


def test_without_the_key_only_the_owner_may_connect(daemon: MakeDaemon) -> None:
    """The socket's mode is 0600."""
    served = daemon()
    mode = os.stat(os.path.join(served.folder, "control.sock")).st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_with_the_key_the_group_may_connect(daemon: MakeDaemon) -> None:
    """The socket's mode is 0660."""
    group = grp.getgrgid(os.getegid()).gr_name
    served = daemon(daemon={"control_group": group})
    status = os.stat(os.path.join(served.folder, "control.sock"))
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, os.getegid())


def test_a_member_may_read_the_status(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """A member of the group is neither root nor the daemon's user."""
    served = daemon(folder=nobodys_folder, daemon={"control_group": GROUP})
    ran = run_as_member(served, "status", "--json")
    assert ran.status == 0
    assert f'"pid": {served.pid}' in ran.out


@pytest.mark.parametrize("request_", ["reload", "upgrade"])
def test_a_member_may_not_reload_or_upgrade(
    daemon: MakeDaemon, nobodys_folder: str, request_: str
) -> None:
    """The request is refused with a message, and nothing is done."""
    served = daemon(folder=nobodys_folder, daemon={"control_group": GROUP})
    ran = run_as_member(served, request_)
    assert ran.status not in {0, 78}
    assert "upgrade and reload for root" in ran.err
    served.stop()
    assert not served.events("server.reloaded") + served.events("server.upgraded")
