"""The wait of a handler for a client that sends nothing: a process that may last for hours.

Thousands of handlers wait at the same time, and each page of memory that one of them writes to is a
private copy from then on. So this module does little, and never creates a
`tetrad.handler.session`: that comes when the client sends something.
"""

from __future__ import annotations

from select import POLLIN
from time import monotonic_ns

from tetrad.system.timers import LONGEST_WAIT_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import SessionConfig
    from tetrad.ipc.shutdown_pipe import ShutdownPipe
    from tetrad.system.proctitle import ProcessTitle

_MILLISECOND = 1_000_000


class IdleWait:
    """Waits for the client's input until its deadline or a request to stop."""

    __slots__ = ("_first", "_idle", "_max_duration", "_poll", "_shutdown_pipe", "_title")

    def __init__(
        self, config: SessionConfig, shutdown_pipe: ShutdownPipe, title: ProcessTitle
    ) -> None:
        self._first = _milliseconds(config["first_command_timeout"])
        self._idle = _milliseconds(config["idle_timeout"])
        self._max_duration = _milliseconds(config["max_duration"])
        self._shutdown_pipe = shutdown_pipe
        self._poll = shutdown_pipe.poll
        self._title = title

    def set_up_process(self, name: bytes) -> None:
        """Prepare the process for a long life: unblock SIGTERM, set the title `handler NAME`."""
        if not self._shutdown_pipe.signals_unblocked:
            self._shutdown_pipe.unblock_signals()
        self._title.show(b"handler " + name)

    def wait(self, fd: int, started: int, *, has_asked: bool) -> None:
        """Wait until the client sends something or closes, a deadline passes, or a request comes.

        The caller finds out which of these it was. `started` is when the session began, in
        nanoseconds of the monotonic clock; `has_asked`: the client has sent a command.
        """
        passed = (monotonic_ns() - started) // _MILLISECOND
        wait = self._idle if has_asked else self._first - passed
        left = self._max_duration - passed
        wait = left if left < wait else wait  # noqa: FURB136 - `min` is one more page
        if wait > 0:
            self._poll.register(fd, POLLIN)
            self._shutdown_pipe.may_give_way = not has_asked
            self._shutdown_pipe.wait(self._poll, wait, is_stopping=False)
            self._shutdown_pipe.may_give_way = False
            self._poll.unregister(fd)


def _milliseconds(seconds: float | None) -> int:
    return int(
        (LONGEST_WAIT_SECONDS if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)) * 1000
    )
