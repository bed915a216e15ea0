"""The event loop of the master: descriptors to watch, timers, and a chore for when it is quiet."""

from __future__ import annotations

import select
from time import monotonic

from tetrad.system.timers import LONGEST_WAIT_SECONDS, Timers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SECONDS = 0.1
"""How soon something is tried again for which the machine has no room."""

QUIET_SECONDS = 0.001
"""How long nothing has to happen before a chore is done: who has just come is served first."""


class EventLoop:
    """Calls back who watches a descriptor that can be read, with the descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, Callable[[int], object]] = {}
        self._unwatched: set[int] = set()
        self.highest_fd = self._epoll.fileno()
        self.timers = Timers()

    def watch(self, fd: int, watcher: Callable[[int], object]) -> None:
        """Call `watcher` whenever there is something to read, or the other end is gone."""
        self._watchers[fd] = watcher
        self.track_fd(fd)
        self._register(fd)

    def unwatch(self, fd: int) -> None:
        """Call no more. To be done before closing: a copy in a child would keep it firing."""
        if self._watchers.pop(fd, None) is not None:
            self._unregister(fd)
            self._unwatched.add(fd)

    def suspend(self, fd: int) -> None:
        """Look away for a moment: something is there, and no room to take it."""
        self._unregister(fd)
        self._register_soon(fd)

    def track_fd(self, fd: int) -> None:
        """Take note of a descriptor that children are to close."""
        self.highest_fd = max(self.highest_fd, fd)

    def run_once(self, *, has_chore: bool) -> bool:
        """Wait, call back, and run the timers. With a chore waiting it waits for a moment only.

        Returns whether anything happened, so that the chore is only done when nothing did.
        """
        timers = self.timers
        wait = QUIET_SECONDS if has_chore else timers.due - monotonic()
        if wait < 0:
            wait = 0.0
        elif wait > LONGEST_WAIT_SECONDS:
            wait = LONGEST_WAIT_SECONDS
        # What is unwatched during this turn may be opened anew during it, by somebody else.
        if self._unwatched:
            self._unwatched.clear()
        happened = self._epoll.poll(wait)
        for fd, _ in happened:
            watcher = self._watchers.get(fd)
            if watcher is not None and fd not in self._unwatched:
                watcher(fd)
        now = monotonic()
        if timers.due <= now:
            timers.run(now)
        return happened != []

    def _register(self, fd: int) -> None:
        """Have the kernel watch it; what it has no room to watch now, it may have soon."""
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            self._register_soon(fd)

    def _register_soon(self, fd: int) -> None:
        when = monotonic() + RETRY_SECONDS
        self.timers.set(f"watch {fd}", when, lambda: self._register(fd))

    def _unregister(self, fd: int) -> None:
        if f"watch {fd}" in self.timers:
            self.timers.cancel(f"watch {fd}")
        else:
            self._epoll.unregister(fd)
