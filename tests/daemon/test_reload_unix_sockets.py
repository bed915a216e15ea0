"""Sockets of dead daemons at the paths of new listeners: a refused reload leaves them there."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

NAMES = ("a.sock", "b.sock")


def leave_socket(path: str) -> int:
    """Leave a Unix socket as a dead daemon does, and return its inode."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    return os.stat(path).st_ino


@pytest.mark.parametrize("in_the_way", ["a file", "a missing folder"])
def test_a_refused_reload_removes_no_socket(daemon: MakeDaemon, in_the_way: str) -> None:
    """Whichever of the new listeners cannot be opened."""
    served = daemon(listen=[{"port": 0}])
    paths = [os.path.join(served.folder, name) for name in NAMES]
    inodes = [leave_socket(path) for path in paths]
    last = os.path.join(served.folder, "c.sock" if in_the_way == "a file" else "missing/c.sock")
    if in_the_way == "a file":
        with open(last, "w", encoding="ascii"):
            pass
    before = sorted(os.listdir(served.folder))
    places = [*paths, last]
    served.configure(listen=[{"port": 0}, *({"address": f"unix:{path}"} for path in places)])
    ran = served.tetrad("reload")
    assert (ran.status, f"unix:{last}: " in ran.err) == (1, True), ran
    assert [os.stat(path).st_ino for path in paths] == inodes
    assert sorted(os.listdir(served.folder)) == before


def test_an_applied_reload_replaces_them(daemon: MakeDaemon) -> None:
    """Nothing else is left of them."""
    served = daemon(listen=[{"port": 0}])
    paths = [os.path.join(served.folder, name) for name in NAMES]
    inodes = [leave_socket(path) for path in paths]
    before = sorted(os.listdir(served.folder))
    served.configure(listen=[{"port": 0}, *({"address": f"unix:{path}"} for path in paths)])
    assert served.tetrad("reload").status == 0
    assert not {os.stat(path).st_ino for path in paths} & set(inodes)
    assert sorted(os.listdir(served.folder)) == before
    for name in NAMES:
        assert served.connect_to_path(name).quit() == b"quit"
