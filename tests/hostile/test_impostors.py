"""A process of another user that answers on the control socket in the place of a daemon."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from tetrad.cli.exit_status import FAILURE, NOT_RUNNING, OK, STATUS_UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

IMPOSTOR = """
import contextlib, socket, sys
from tetrad.system.proctitle import ProcessTitle, of_master
path, file, answer = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
ProcessTitle().show(of_master(file))
print("listens", flush=True)
while True:
    peer, _ = listener.accept()
    with peer, contextlib.suppress(OSError):
        data = peer.recv(100000)
        print(data, flush=True)
        peer.sendall(answer.encode() if data else b"")
"""
"""Answers every request with the same text, under the title of a master."""


def forged_status(path: str) -> str:
    """Return the status of a daemon that runs, with a log of the impostor's choice."""
    times = {"started": 1.0, "uptime": 1.0}
    log = {"level": "info", "format": "json", "logger": 1, "written": 1, "lost": 0}
    zeros = {
        "clients": {"now": 0, "peak": 0, "limit": 1},
        "handlers": {"now": 0, "idle": 0, "lost": 0},
    }
    status = {"state": "running", "pid": 1, "version": "forged", "config": path, "accepted": 0}
    lists = {"listeners": [], "refused": {}, "sessions": [], "log": {"file": "/etc/forged", **log}}
    return json.dumps({**status, **times, **zeros, **lists, "access": True, "changes": {}})


@pytest.fixture
def visited(
    prepared: MakeDaemon, make_nobodys_folder: object, public_folder: str
) -> Iterator[tuple[Daemon, subprocess.Popen[bytes]]]:
    """Return a daemon of root that does not run, and what listens on its control socket."""
    assert make_nobodys_folder
    shared = tempfile.mkdtemp(dir=public_folder)
    os.chmod(shared, 0o1777)  # noqa: S103 - as /tmp
    path = os.path.join(shared, "control.sock")
    served = prepared(daemon={"control": path})
    command = [sys.executable, "-c", IMPOSTOR, path, served.file, forged_status(served.file)]
    impostor = subprocess.Popen(
        command, user="nobody", extra_groups=[], stdout=subprocess.PIPE, cwd="/"
    )
    assert impostor.stdout is not None
    assert impostor.stdout.readline() == b"listens\n"
    yield served, impostor
    impostor.kill()
    impostor.communicate()


def test_a_command_asks_nobody_who_may_not_run_the_daemon(
    visited: tuple[Daemon, subprocess.Popen[bytes]],
) -> None:
    """It names the process and its user, reports no daemon as running, and sends no request."""
    served, impostor = visited
    expected = (
        ("status", STATUS_UNKNOWN, True),
        ("status --json", STATUS_UNKNOWN, True),
        ("reload", NOT_RUNNING, False),
        ("upgrade", NOT_RUNNING, False),
        ("explain 127.0.0.1", OK, False),
        ("client time", FAILURE, True),
        ("logs", FAILURE, False),
        ("stop", OK, False),
    )
    uid = pwd.getpwnam("nobody").pw_uid
    for command, status, is_named in expected:
        ran = served.tetrad(*command.split())
        assert ran.status == status, ran
        assert "forged" not in ran.out + ran.err
        named = f"pid {impostor.pid} of user id {uid} listens there, who may not run this daemon"
        assert (named in ran.err) == is_named, ran
    impostor.kill()
    heard = impostor.stdout.read() if impostor.stdout is not None else b""
    assert set(heard.split(b"\n")) <= {b"b''", b""}
