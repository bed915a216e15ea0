"""Change of user, for good: no group, no capability and no way back to root remain."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.util
import os
import pickle
import pwd
import signal
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tetrad.system import fork, users
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tetrad.config.model import Daemon

_T = TypeVar("_T")

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_CAPABILITY_HEADER = struct.pack("@Ii", 0x20080522, 0)
"""Version 3 of the capability sets, of this process (capset(2))."""

_NO_CAPABILITIES = bytes(24)
"""Effective, permitted and inheritable set, 32 bits of each, twice."""


class UserChangeError(PermissionError):
    """Root cannot become another user here."""


class Identity(NamedTuple):
    """A user id and a group id; `more_groups` are groups beyond those of the user."""

    uid: int
    gid: int
    more_groups: tuple[int, ...] = ()


def identity_of(user: str, *groups: str) -> Identity:
    """Return a user of this machine, with its own group or the first of `groups`, and the others.

    Raises KeyError.
    """
    uid, gid = users.user(user)
    own = () if gid is None else (gid,)
    gids = [users.group(group) for group in groups] or [*own]
    if not gids:
        raise KeyError(user)
    return Identity(uid, gids[0], tuple(gids[1:]))


def target_identity(settings: Daemon) -> Identity | None:
    """Return the user and group that the daemon changes to; None if it changes neither.

    Raises PermissionError if the change needs root.
    """
    if settings.user is None and settings.group is None:
        return None
    uid, gid = os.geteuid(), os.getegid()  # in a container, they may have no names
    if settings.user is not None:
        uid, own = users.user(settings.user)
        gid = gid if own is None else own  # without an entry, a change of user needs a group
    if settings.group is not None:
        gid = users.group(settings.group)
    if os.geteuid() == 0:
        return Identity(uid, gid)
    is_user, is_group = uid == os.geteuid(), settings.group is None or gid == os.getegid()
    if is_user and is_group:
        return None
    key = "group" if is_user else "user"
    unit = f"under systemd set {key.capitalize()}= in the unit instead"
    raise PermissionError(f"daemon.{key} needs root; {unit}")


def user_name(uid: int | None = None) -> str:
    """Return the name of a user, this process's by default; in a container, perhaps a number."""
    return users.user_name(os.geteuid() if uid is None else uid)


def group_id(name: str | None) -> int | None:
    """Return a group's id; None for no group."""
    return None if name is None else users.group(name)


def serves_as_root(settings: Daemon) -> bool:
    """Tell whether handlers would run with root's privileges."""
    return os.geteuid() == 0 and settings.user is None


@contextlib.contextmanager
def acting_as(identity: Identity | None) -> Iterator[None]:
    """Create files as another user within the block, with that user's permissions; None: as now.

    Only for root, which remains the real user: the other one can neither signal nor trace it.
    """
    if identity is None or os.geteuid() != 0:
        yield
        return
    gid, groups = os.getegid(), os.getgroups()
    os.setgroups(groups_of(identity))
    os.setegid(identity.gid)
    os.seteuid(identity.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def groups_of(identity: Identity) -> list[int]:
    """Return all groups of a user; one without a name has only its own."""
    try:
        name = pwd.getpwuid(identity.uid).pw_name
    except KeyError:
        return [identity.gid, *identity.more_groups]
    return [*os.getgrouplist(name, identity.gid), *identity.more_groups]


def run_as(identity: Identity | None, function: Callable[[], _T]) -> _T:
    """Return what a function returns or raises in a process of another user; None: in this one.

    The process is one of that user alone: whatever it opens, looks up or executes is as there.
    Raises UserChangeError if root cannot become that user.
    """
    if identity is None:
        return function()

    def become_and_call() -> _T:
        os.setsid()  # without the caller's terminal, into which it could type
        _become(identity)
        return function()

    return _in_child(become_and_call)


def _become(identity: Identity) -> None:
    """Change this process to another user. Raises UserChangeError.

    A container may lack the capabilities for it, and a user namespace (rootless containers) may
    have no such user.
    """
    try:
        os.setgroups(groups_of(identity))
        os.setgid(identity.gid)
        os.setuid(identity.uid)
    except OSError as error:
        raise UserChangeError(
            f"cannot change to user {user_name(identity.uid)} (uid {identity.uid}, gid "
            f"{identity.gid}): {reason_of(error)}; that needs CAP_SETUID and CAP_SETGID, and in a "
            "user namespace ids for that user"
        ) from None


def _in_child(function: Callable[[], _T]) -> _T:
    """Return what a function returns or raises in a child. Raises EOFError if that is killed."""
    read, write = os.pipe()

    def answer() -> None:
        os.close(read)
        try:
            outcome: tuple[object, Exception | None] = (function(), None)
        except Exception as error:  # noqa: BLE001 - raised by the process that asked
            outcome = (None, error)
        with open(write, "wb") as stream:
            pickle.dump(outcome, stream)

    try:
        pid = fork.fork_child(answer)
    finally:
        os.close(write)
    with open(read, "rb") as stream:
        data = stream.read()
    with contextlib.suppress(ChildProcessError):  # SIGCHLD may be ignored by inheritance
        os.waitpid(pid, 0)
    result: _T
    result, error = pickle.loads(data)  # noqa: S301 - written by the function above
    if error is not None:
        raise error
    return result


@contextlib.contextmanager
def permanent_drop(identity: Identity | None) -> Iterator[None]:
    """Make the change of user that happens within the block permanent; None: no change.

    Afterwards a user other than root has no capability in any set, whatever the parent process has
    arranged, and cannot become root again. With or without a change, no program that is executed
    gains privileges. Raises PermissionError.
    """
    if identity is None or identity.uid == 0:
        yield
    else:
        files = program_files()
        _drop_bounding_set()
        yield
        _drop_capabilities()
        if unreadable := unreadable_program(files):
            raise PermissionError(unreadable)
    forbid_new_privileges()


def forbid_new_privileges() -> None:
    """Let no program that this process executes gain privileges. Raises OSError."""
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _refused("prctl(PR_SET_NO_NEW_PRIVS)")


def end_with_parent(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent ends. Raises OSError.

    To be called after a change of user, which cancels it; an exec does not. Raises
    ProcessLookupError if the parent has ended already.
    """
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise _refused("prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise ProcessLookupError(errno.ESRCH, "the process of tetrad run has ended")


def refused_calls(*, with_jobs: bool) -> list[OSError]:
    """Return the errors of the calls that a start, or a job, needs and this process is refused.

    A child makes them. One that is killed for a call tells nothing of it.
    """
    options = {"PR_SET_NO_NEW_PRIVS": (_PR_SET_NO_NEW_PRIVS, 1)}
    if with_jobs:
        options["PR_SET_CHILD_SUBREAPER"] = (_PR_SET_CHILD_SUBREAPER, 1)
        options["PR_SET_PDEATHSIG"] = (_PR_SET_PDEATHSIG, signal.SIGKILL)

    def try_all() -> list[OSError]:
        return [
            _refused(f"prctl({name})")
            for name, (option, value) in options.items()
            if _LIBC.prctl(option, value, 0, 0, 0)
        ]

    try:
        return _in_child(try_all)
    except EOFError:
        return []


def _refused(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number).lower()}")


def _drop_bounding_set() -> None:
    """Remove every capability from the bounding set; only root may, so before the change."""
    capability = 0
    while _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1


def _drop_capabilities() -> None:
    _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if _LIBC.capset(_CAPABILITY_HEADER, _NO_CAPABILITIES):
        raise _refused("capset")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PermissionError("root's privileges could not be dropped permanently")


def program_files() -> list[str]:
    """Return Python, and a file of each library that the daemon and its helpers import."""
    found = [importlib.util.find_spec(name) for name in ("msgspec", "structlog", "yaml")]
    return [
        sys.executable,
        os.__file__,
        __file__,
        *(one.origin for one in found if one and one.origin),
    ]


def unreadable_program(files: list[str]) -> str:
    """Return the problem if this user cannot execute Python or read one of the other files."""
    for path in files:
        if not os.access(path, os.R_OK | os.X_OK if path == sys.executable else os.R_OK):
            return (
                f"user {user_name()} cannot read {path}, which the daemon needs:"
                " install tetrad where every user can read it, e.g. in /opt/tetrad"
            )
    return ""
