"""Connections of other users to the control socket do not take the place of root's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import descriptors_of, until

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

GROUP = "daemon"

CONNECT = """
import socket, sys
path, count, silent = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "silent"
kept = []
for _ in range(count):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    if silent:
        kept.append(peer)
    else:
        peer.recv(1000)
print("connected", flush=True)
sys.stdin.read()
"""
"""A program that opens many connections, and keeps them, or closes each after the answer."""


def connect_many(served: Daemon, group: str, mode: str) -> subprocess.Popen[bytes]:
    """Connect 200 times as another user; return the program when it has."""
    path = os.path.join(served.folder, "control.sock")
    flood = subprocess.Popen(
        [sys.executable, "-c", CONNECT, path, "200", mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user="nobody",
        group=group,
        extra_groups=[],
    )
    assert flood.stdout is not None
    assert flood.stdout.readline() == b"connected\n"
    return flood


@pytest.mark.parametrize(
    ("group", "mode"), [(GROUP, "silent"), ("nogroup", "silent"), ("nogroup", "answered")]
)
def test_a_pending_request_of_root_is_answered(
    daemon: MakeDaemon, nobodys_folder: str, group: str, mode: str
) -> None:
    """Members and users without permission cannot push it out, nor keep root from asking."""
    served = daemon(folder=nobodys_folder, daemon={"control_group": GROUP})
    pending = served.connect_to_path("control.sock")
    pending.send(b"sta")
    with connect_many(served, group, mode) as flood:
        pending.send(b"tus\n")
        assert json.loads(pending.read_all())["pid"] == served.pid
        assert served.tetrad("reload").status == 0
        assert served.status()["state"] == "running"
        flood.kill()
    until(lambda: len(descriptors_of(served.pid)) < 25, "the connections to be closed")


def test_refused_connections_take_no_place(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """A user who may not ask is answered at once, and the connection closed."""
    served = daemon(folder=nobodys_folder)
    before = descriptors_of(served.pid).keys()
    with connect_many(served, "nogroup", "silent") as flood:
        assert served.status()["state"] == "running"
        assert descriptors_of(served.pid).keys() == before
        flood.kill()
