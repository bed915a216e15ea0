"""The folders that Python imports from: root uses none that another user can change.

`python -m` adds the working directory, and PYTHONPATH and a user site add folders of whoever set
them; the daemon and its programs get the same list. This module runs before the list is checked. So
it imports only what every interpreter has loaded already, and nothing from `__future__`.
"""

import os
import stat
import sys

import tetrad

warnings: list[str] = []
"""What `restrict` has to say, for the command line to print."""


def restrict() -> None:
    """Remove from sys.path the folders that users other than root can change; for root only.

    The interpreter's own folders and that of tetrad stay: their code is running already.
    """
    own = (sys.base_prefix, sys.prefix, os.path.dirname(os.path.abspath(tetrad.__path__[0])))
    trusted = []
    for folder in sys.path:
        place = os.path.abspath(folder)
        if any(f"{place}/".startswith(f"{one}/") for one in own):
            trusted.append(folder)
            continue
        place = os.path.realpath(place)
        try:
            fault = _fault_of(place)
        except OSError:
            continue  # whoever creates it later is unknown
        if fault:
            hint = "run tetrad in another folder, or unset PYTHONPATH"
            warnings.append(f"warning: no Python module is used from {folder}: {fault}; {hint}")
        else:
            trusted.append(place)
    sys.path[:] = trusted


def _fault_of(path: str) -> str:
    """Return by whom a folder can be changed, or any folder above it; empty if only by root.

    `path` has no symbolic links. Raises OSError.
    """
    # In a user namespace, root of the machine may have another number.
    roots = {0, os.stat("/").st_uid}
    is_target = True
    while True:
        status = os.stat(path)
        if status.st_uid not in roots:
            return f"{path} belongs to user id {status.st_uid}"
        others = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid else 0)
        # In a folder such as /tmp, nobody can replace what belongs to root.
        if status.st_mode & others and (is_target or not status.st_mode & stat.S_ISVTX):
            return f"{path} is writable for other users"
        if path == "/":
            return ""
        path, is_target = os.path.dirname(path), False
