"""Standard input, output and error of the master and its children: the null device.

Only the logger writes to the standard error that the daemon has been started with, which may be a
terminal. The master keeps it at another number, which handlers close.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.system.event_loop import EventLoop

STDERR = 2


class StandardStreams:
    """The standard streams; `stderr` is the descriptor of the one for the logger."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self.stderr = STDERR

    def hide(self) -> None:
        """Put the null device in the place of all three; earlier failures of a start are shown."""
        if self.stderr == STDERR:
            self.stderr = os.dup(STDERR)
            self._loop.track_fd(self.stderr)
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(STDERR + 1):
            os.dup2(null, number)
        os.close(null)

    def show(self) -> None:
        """Restore standard error, for the next version of the master."""
        os.dup2(self.stderr, STDERR)
