"""Lets other users execute a Python in a home that only its owner may enter, such as root's.

The tests that become another user need that. This process gets a mount namespace of its own, in
which such a home is a folder that everybody may enter, with the same content at the same paths; it
ends with the last process of the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import subprocess
import sys
import tempfile

import tetrad
from tests.support.project import ROOT

_CLONE_NEWNS = 0x20000
_ENTER = 0o001
"""The permission of others to enter a folder."""


def share_python() -> None:
    """Make the interpreter, tetrad and the project reachable for all users.

    Needs root; without it, or without the right to mount, nothing happens and
    `nobody_can_run_python` stays false.
    """
    if os.geteuid() or nobody_can_run_python():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        return
    with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
        _run("mount", "--make-rprivate", "/")
        while closed := _closed_folders():
            _open_folder(closed[0])


def nobody_can_run_python() -> bool:
    """Tell whether the user nobody can execute this interpreter and import tetrad."""
    command = [sys.executable, "-c", "import tetrad"]
    group = pwd.getpwnam("nobody").pw_gid
    try:
        ran = subprocess.run(
            command,
            user="nobody",
            group=group,
            extra_groups=[],
            cwd="/",
            check=False,
            capture_output=True,
        )
    except PermissionError:
        return False
    return not ran.returncode


def _closed_folders() -> list[str]:
    """Return the folders on the way that others may not enter, outermost first."""
    wanted = (sys.executable, sys.base_prefix, sys.prefix, os.path.dirname(tetrad.__file__), ROOT)
    folders = {
        str(folder)
        for path in wanted
        for full in (os.path.abspath(path), os.path.realpath(path))
        for folder in _parents(full)
    }
    return sorted(folder for folder in folders if not os.stat(folder).st_mode & _ENTER)


def _parents(path: str) -> list[str]:
    parent = os.path.dirname(path)
    return [] if parent == path else [*_parents(parent), parent]


def _open_folder(folder: str) -> None:
    """Cover a folder with one that all users may enter, and that has the same content."""
    aside = tempfile.mkdtemp(prefix="tetrad-test-")
    _run("mount", "--rbind", folder, aside)
    _run("mount", "-t", "tmpfs", "-o", "mode=755,size=64m", "tetrad-test", folder)
    for entry in os.scandir(aside):
        place = os.path.join(folder, entry.name)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
            continue
        if entry.is_dir():
            os.mkdir(place)
        else:
            with open(place, "xb"):
                pass
        _run("mount", "--rbind", entry.path, place)
    _run("umount", "--lazy", aside)
    os.rmdir(aside)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
