"""Landlock (landlock(7)): a program is kept from the other processes of its user.

A process in a Landlock domain cannot trace processes outside of it, nor read their memory,
environment or descriptors in /proc. Since Linux 6.12 it cannot signal them either. Nothing else is
restricted: files and the network are the program's, as the user's permissions have it.

ctypes is imported late: it is as large as the rest of the master.
"""

from __future__ import annotations

import errno
import os

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls, with the same numbers on all architectures."""

_GET_VERSION = 1
_MINIMUM_VERSION = 2
"""Version 1, until Linux 5.18, would also refuse to move files between directories."""

_SCOPE_VERSION = 6
"""Since this version, a domain need not restrict files."""

_SCOPE_SIGNAL = 2

_MAKE_BLOCK, _REFER = 1 << 11, 1 << 13
"""To create block devices, which needs root, and to move files between directories."""

_PATH_BENEATH = 1
_WORD_BYTES, _FD_BYTES = 8, 4


def unavailable() -> str:
    """Return why processes cannot be confined, or an empty text."""
    try:
        _version()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def confine() -> None:
    """Confine this process and its future children. Raises OSError.

    It must have no_new_privs.
    """
    if _version() >= _SCOPE_VERSION:
        ruleset = _ruleset(0, 0, _SCOPE_SIGNAL)
    else:
        ruleset = _ruleset(_MAKE_BLOCK | _REFER)
        root = os.open("/", os.O_PATH)
        rule = _word(_REFER) + root.to_bytes(_FD_BYTES, "little")
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        os.close(root)
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _version() -> int:
    """Return the version of the kernel's interface. Raises OSError if it is of no use."""
    version = _call(_CREATE_RULESET, None, 0, _GET_VERSION)
    if version < _MINIMUM_VERSION:
        raise OSError(errno.ENOSYS, f"Landlock version {version} of this kernel is too old")
    return version


def _ruleset(*words: int) -> int:
    data = b"".join(map(_word, words))
    return _call(_CREATE_RULESET, data, len(data), 0)


def _word(value: int) -> bytes:
    return value.to_bytes(_WORD_BYTES, "little")


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call. Raises OSError."""
    import ctypes  # noqa: PLC0415 - see the module's docstring

    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code).lower()}")
    return result
