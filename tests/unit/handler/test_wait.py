"""A handler's waits for its client, and requests to stop that come before or during them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tetrad.handler.wait import ClientWait, SessionEnded
from tetrad.ipc.shutdown_pipe import ShutdownPipe
from tetrad.system.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE_SECONDS = 3600.0


class Waiter:
    """The wait of a handler, a pipe from its client, and the pipe from the master."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self._client_read_end, self._client_write_end = os.pipe()
        self._shutdown_pipe = ShutdownPipe(self._read_end, GRACE_SECONDS)
        self.wait = ClientWait(self._client_read_end, self._shutdown_pipe, NEVER)

    def request_stop(self, how: str) -> None:
        """Ask the handler to stop, by a byte in the pipe or a signal."""
        if how == "byte":
            os.write(self._write_end, b".")
        else:
            self._shutdown_pipe.on_signal(signal.SIGTERM, None)

    def send(self, data: bytes) -> None:
        """Send data as the client."""
        os.write(self._client_write_end, data)

    def close_pipe(self) -> None:
        """Close the write end, as the end of the master does."""
        os.close(self._write_end)
        self._write_end = -1

    def close(self) -> None:
        """Close everything."""
        client = {self._client_read_end, self._client_write_end}
        for fd in client | {self._read_end, self._write_end} - {-1}:
            os.close(fd)


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    """Return a handler's wait."""
    waiter = Waiter()
    yield waiter
    waiter.close()


@pytest.mark.parametrize("how", ["byte", "signal"])
def test_a_stopping_handler_still_notices_the_end_of_the_master(waiter: Waiter, how: str) -> None:
    """Also while its client sends without a pause, so that it only checks and never waits."""
    waiter.request_stop(how)
    waiter.wait.check()
    waiter.wait.check()
    waiter.close_pipe()
    with pytest.raises(SessionEnded, match="stopping"):
        waiter.wait.check()


def test_a_request_before_a_wait_ends_it(waiter: Waiter) -> None:
    """A signal just before poll(2) is not missed."""
    waiter.request_stop("signal")
    assert not waiter.wait.for_input(NEVER, "never")


@pytest.mark.parametrize("how", ["byte", "signal"])
def test_a_stopping_handler_can_wait_for_the_rest_of_a_command(waiter: Waiter, how: str) -> None:
    """A request that is known already ends no further wait."""
    waiter.request_stop(how)
    assert not waiter.wait.for_input(NEVER, "never")
    assert waiter.wait.is_stopping()
    waiter.send(b"me")
    assert waiter.wait.for_input(NEVER, "never")
