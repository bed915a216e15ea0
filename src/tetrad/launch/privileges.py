"""What a daemon sheds that root has started: its user, its groups, and all ways back."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.config.model import Daemon

_LIBC = ctypes.CDLL(None)

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_CAPABILITY_HEADER = struct.pack("@Ii", 0x20080522, 0)
"""Version 3 of the sets, of this process (capset(2))."""

_NO_CAPABILITIES = bytes(24)
"""Effective, permitted and inheritable: twice 32 bits of each."""


class Identity(NamedTuple):
    """The user and group ids to become."""

    uid: int
    gid: int


def wanted(settings: Daemon) -> Identity | None:
    """Return whom to become, None to stay who we are. Raises PermissionError."""
    if settings.user is None and settings.group is None:
        return None
    uid, gid = os.geteuid(), os.getegid()  # in a container, they may have no names
    if settings.user is not None:
        user = pwd.getpwnam(settings.user)
        uid, gid = user.pw_uid, user.pw_gid
    if settings.group is not None:
        gid = grp.getgrnam(settings.group).gr_gid
    if os.geteuid() == 0:
        return Identity(uid, gid)
    if (uid, gid) != (os.geteuid(), os.getegid()):
        raise PermissionError("daemon.user, daemon.group: only root can become somebody else")
    return None


def group_id(name: str | None) -> int | None:
    """Return a group's id; None for no group."""
    return None if name is None else grp.getgrnam(name).gr_gid


def are_kept(settings: Daemon) -> bool:
    """Tell whether clients would be served with all that root may do."""
    return os.geteuid() == 0 and settings.user is None


@contextlib.contextmanager
def dropping(identity: Identity | None) -> Iterator[None]:
    """Prepare a change of user, which is made within the block, and make sure of it.

    Whoever is not root then has no capability in any set, whatever whoever started us has
    arranged, and no way back. Raises PermissionError.
    """
    if identity is None or identity.uid == 0:
        yield
    else:
        _limit()
        yield
        _renounce()
        _insist_on_program()
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _limit() -> None:
    """While still root: take every capability out of the bounding set, if we are let."""
    capability = 0
    while _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1


def _renounce() -> None:
    _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _LIBC.capset(_CAPABILITY_HEADER, _NO_CAPABILITIES)
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PermissionError("root's privileges could not be dropped for good")


def _insist_on_program() -> None:
    """Check that we can still read what the daemon is made of."""
    for path in (sys.executable, os.__file__, __file__):
        if not os.access(path, os.R_OK):
            user = pwd.getpwuid(os.geteuid()).pw_name
            raise PermissionError(
                f"user {user} cannot read {path}, which the daemon needs:"
                " install tetrad where every user can, e.g. in /opt/tetrad"
            )
