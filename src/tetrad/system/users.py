"""Users and groups, by name or by id: an id needs no entry in the databases of the system."""

from __future__ import annotations

import grp
import pwd

_INVALID_ID = (1 << 32) - 1
"""The id that chown(2) and others take as "do not change"."""


def user(name: str) -> tuple[int, int | None]:
    """Return the id of a user, and of its group; None if only the id is known. Raises KeyError."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        uid = _id(name)
        try:
            found = pwd.getpwuid(uid)
        except KeyError:
            return uid, None
    return found.pw_uid, found.pw_gid


def group(name: str) -> int:
    """Return the id of a group. Raises KeyError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return _id(name)


def user_name(uid: int) -> str:
    """Return the name of a user, or the id of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def home(uid: int) -> str:
    """Return the home directory of a user; nothing if it has none."""
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return ""


def _id(text: str) -> int:
    if text.isascii() and text.isdecimal() and str(int(text)) == text and int(text) < _INVALID_ID:
        return int(text)
    raise KeyError(text)
