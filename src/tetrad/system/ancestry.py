"""Whether a process descends from this one: a program that runs for a client does."""

from __future__ import annotations

import os

_ATTEMPTS = 10
"""How often the ancestors are followed again because one of them has exited meanwhile."""


def is_descendant(pid: int) -> bool:
    """Tell whether a process descends from this one; also true if that is not certain.

    To be asked about processes of this user. A process without a parent belongs to process 1, or to
    the nearest ancestor that has declared itself a subreaper. Without /proc it is always false.
    """
    if not os.path.exists("/proc/self/stat"):
        return False
    for _ in range(_ATTEMPTS):
        ancestor: int | None = pid
        while ancestor:
            if ancestor == os.getpid():
                return True
            if ancestor == 1:
                return False
            try:
                ancestor = _parent_of(ancestor)
            except OSError:
                if _is_of_another_user(ancestor):
                    return False
                ancestor = None
        if ancestor == 0:
            return False
    return True


def _parent_of(pid: int) -> int:
    """Return the parent of a process, 0 if it is outside of this pid namespace. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b") ")[2].split()[1])


def _is_of_another_user(pid: int) -> bool:
    """Tell whether a process that /proc hides is another user's, as the parent of su(1) is."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass  # it has exited
    return False
