"""What a daemon sheds that root has started: its user, its groups, and all ways back."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tetrad.config import Daemon

_PR_SET_NO_NEW_PRIVS = 38


class Identity(NamedTuple):
    """The user and group ids to become."""

    uid: int
    gid: int


def wanted(settings: Daemon) -> Identity | None:
    """Return whom to become, None to stay who we are. Raises PermissionError."""
    if settings.user is None and settings.group is None:
        return None
    user = pwd.getpwnam(settings.user) if settings.user else pwd.getpwuid(os.geteuid())
    gid = group_id(settings.group)
    gid = user.pw_gid if gid is None else gid
    if os.geteuid() == 0:
        return Identity(user.pw_uid, gid)
    if (user.pw_uid, gid) != (os.geteuid(), os.getegid()):
        raise PermissionError("daemon.user, daemon.group: only root can become somebody else")
    return None


def group_id(name: str | None) -> int | None:
    """Return a group's id; None for no group."""
    return None if name is None else grp.getgrnam(name).gr_gid


def renounce() -> None:
    """See to it that nothing this process ever executes gains a privilege (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def insist_on_program() -> None:
    """Check that we can still read what the daemon is made of. Raises PermissionError."""
    for path in (sys.executable, os.__file__, __file__):
        if not os.access(path, os.R_OK):
            user = pwd.getpwuid(os.geteuid()).pw_name
            raise PermissionError(
                f"user {user} cannot read {path}, which the daemon needs:"
                " install tetrad where every user can, e.g. in /opt/tetrad"
            )
