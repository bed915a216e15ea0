"""Garbage in the pipe of exit notices, which every handler can write to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import until
from tetrad.ipc.fds import NOTICES_WRITE

if TYPE_CHECKING:
    from tests.support.fixtures import MakeDaemon

GARBAGE = [
    b"\n",
    b"garbage without an end",
    b"x" * 19 + b"\n",
    b"000000000001z000000\n",
    bytes(range(256)) * 16,
]


@pytest.mark.quick
def test_garbage_in_the_notice_pipe_is_ignored_and_reported(daemon: MakeDaemon) -> None:
    """The master serves on, and sees the ends of sessions that follow it."""
    served = daemon()
    client = served.served()
    pipe = os.open(f"/proc/{served.handlers[0]}/fd/{NOTICES_WRITE}", os.O_WRONLY)
    for garbage in GARBAGE:
        os.write(pipe, garbage)
    os.close(pipe)
    assert served.wait_for("handler.notice_invalid")["count"] >= len(GARBAGE)
    assert ANSWER.fullmatch(client.ask())
    assert client.quit() == b"quit"
    until(lambda: not served.status()["clients"]["now"], "the end of the session")
    assert ANSWER.fullmatch(served.connect().ask())
    assert not served.events("handler.lost")
