"""The controlling terminal of `tetrad run`: when it hangs up, the daemon stops.

Only the end of the terminal itself counts, not SIGHUP, which also means a reload. A daemon without
a controlling terminal, as one that systemd runs, is not affected.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tetrad.system.event_loop import EventLoop

_TERMINAL = "/dev/tty"
"""The controlling terminal of the process that opens it; an error for one that has none."""


class Terminal:
    """Watches the controlling terminal, and calls `on_hangup` once when it hangs up."""

    def __init__(self, loop: EventLoop, on_hangup: Callable[[], object]) -> None:
        self._loop = loop
        self._on_hangup = on_hangup
        self.is_watched = False

    def watch(self) -> None:
        """Watch the terminal from now on, if there is one."""
        try:
            fd = _open()
        except OSError:
            return
        self.is_watched = True
        # Its input is nobody's business here: only a hang-up, which is always reported.
        self._loop.watch(fd, self._on_event, select.EPOLLHUP)

    def has_hung_up(self) -> bool:
        """Tell whether the watched terminal is gone.

        It is also gone when the shell that it belonged to has ended, and something else keeps it
        open: the kernel then sends SIGHUP, and the terminal reports nothing.
        """
        if not self.is_watched:
            return False
        try:
            os.close(_open())
        except OSError:
            return True
        return False

    def _on_event(self, fd: int) -> None:
        self._loop.unwatch(fd)
        os.close(fd)
        self._on_hangup()


def _open() -> int:
    """Open the controlling terminal, without waiting for a modem. Raises OSError."""
    return os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
