"""What becomes of a handler whose client has it wait: a process that lasts.

Thousands of them wait at the same time, and each page of memory that one touches is its own from
then on. So this is little, and what comes with a `tetrad.handler.session` has to wait, too.
"""

from __future__ import annotations

from select import POLLIN
from time import monotonic_ns

from tetrad.system.timers import LONGEST_WAIT_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from tetrad.handler.progress import SessionProgress
    from tetrad.ipc.fd_passing import ClientHandoff
    from tetrad.ipc.runtime_config import SessionConfig
    from tetrad.ipc.shutdown_pipe import ShutdownPipe
    from tetrad.system.proctitle import ProcessTitle

    Patient = Callable[[_socket.socket, ClientHandoff, SessionProgress, bytes], bool]
    """What serves a client that takes longer, and tells whether it can serve another."""

_MILLISECOND = 1_000_000


class IdleWait:
    """Waits for clients, each as long as the plan says, with an ear for the master.

    Then `go_on` serves them.
    """

    __slots__ = ("_first", "_idle", "_most", "_poll", "_shutdown_pipe", "_title", "go_on")

    def __init__(
        self,
        config: SessionConfig,
        shutdown_pipe: ShutdownPipe,
        title: ProcessTitle,
        go_on: Patient,
    ) -> None:
        self.go_on = go_on
        self._first = _milliseconds(config["first_command_timeout"])
        self._idle = _milliseconds(config["idle_timeout"])
        self._most = _milliseconds(config["max_duration"])
        self._shutdown_pipe = shutdown_pipe
        self._poll = shutdown_pipe.poll
        self._title = title

    def settle(self, name: bytes) -> None:
        """Become a process that lasts: one with a name, which hears its master."""
        if not self._shutdown_pipe.signals_unblocked:
            self._shutdown_pipe.unblock_signals()
        self._title.show(b"handler " + name)

    def wait(self, fd: int, since: int, *, has_asked: bool) -> None:
        """Wait until a client speaks or leaves, its time is up, or the master says something.

        Which of these it was is left to who serves it on. `since` is in nanoseconds of the
        monotonic clock.
        """
        passed = (monotonic_ns() - since) // _MILLISECOND
        wait = self._idle if has_asked else self._first - passed
        left = self._most - passed
        wait = left if left < wait else wait  # noqa: FURB136 - `min` is one more page
        if wait > 0:
            self._poll.register(fd, POLLIN)
            self._shutdown_pipe.wait(self._poll, wait, is_stopping=False)
            self._poll.unregister(fd)


def _milliseconds(seconds: float | None) -> int:
    return int(
        (LONGEST_WAIT_SECONDS if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)) * 1000
    )
