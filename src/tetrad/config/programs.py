"""Checks the programs that commands name, when the configuration is read.

A program can disappear afterwards: then the command fails, and the log has the reason.
"""

from __future__ import annotations

import os
import shutil

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are searched, and the PATH in their environment."""

LANG = "C.UTF-8"
"""The LANG in the environment of programs, unless the command sets another."""


def find_program(name: str, path: str) -> str:
    """Return the absolute path of a program, searched in `path` if the name has no slash.

    Raises ValueError.
    """
    if os.sep not in name:
        found = shutil.which(name, path=path) if name else None
        if found is None or not os.path.isabs(found):
            raise ValueError(f"no program {name!r} in {path}")
        return found
    if not os.path.isabs(name):
        raise ValueError(f"{name!r}: write an absolute path, or a name without / to search in PATH")
    if not os.path.isfile(name):
        raise ValueError(f"no such program: {name}")
    if not os.access(name, os.X_OK):
        raise ValueError(f"{name} is not executable; run chmod +x {name}")
    return str(name)  # an Argument would not be plain data in the runtime configuration
