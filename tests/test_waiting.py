"""Waiting for a client with an ear for the master, whatever was heard before."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tetrad.handler.wait import NEVER, ClientWait, SessionEnded
from tetrad.ipc.shutdown_pipe import ShutdownPipe

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE_SECONDS = 3600.0


class Ward:
    """A handler's ears: its client and its lifeline, and those who speak into them."""

    def __init__(self) -> None:
        self._hears, self.master = os.pipe()
        self._served, self.client = socket.socketpair()
        self.lifeline = ShutdownPipe(self._hears, GRACE_SECONDS)
        self.waiting = ClientWait(self._served.fileno(), self.lifeline, NEVER)

    def die(self) -> None:
        """Have no master any more."""
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        """Close everything."""
        self._served.close()
        self.client.close()
        for fd in {self._hears, self.master} - {-1}:
            os.close(fd)


@pytest.fixture
def ward() -> Iterator[Ward]:
    """Return a handler's ears."""
    ward = Ward()
    yield ward
    ward.close()


def ordered(ward: Ward, how: str) -> None:
    """Have a handler told to stop."""
    if how == "byte":
        os.write(ward.master, b".")
    else:
        ward.lifeline.on_signal(signal.SIGTERM, None)


@pytest.mark.parametrize("how", ["byte", "signal"])
def test_who_is_to_stop_still_sees_the_end_of_the_master(ward: Ward, how: str) -> None:
    """A client that talks without a pause is only looked away from for a moment at a time."""
    ordered(ward, how)
    ward.waiting.check()
    ward.waiting.check()
    ward.die()
    with pytest.raises(SessionEnded, match="stopping"):
        ward.waiting.check()


def test_an_order_that_came_before_a_wait_ends_it(ward: Ward) -> None:
    """Nobody sleeps through a signal that came a moment too early."""
    ordered(ward, "signal")
    assert not ward.waiting.for_input(NEVER, "never")


@pytest.mark.parametrize("how", ["byte", "signal"])
def test_who_knows_of_an_order_waits_on(ward: Ward, how: str) -> None:
    """For a command that has begun: its rest is waited for, and comes."""
    ordered(ward, how)
    assert not ward.waiting.for_input(NEVER, "never")
    assert ward.waiting.is_stopping()
    ward.client.send(b"me")
    assert ward.waiting.for_input(NEVER, "never")
