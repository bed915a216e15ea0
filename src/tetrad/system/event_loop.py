"""The master's event loop: readable descriptors, timers, and one task for idle moments."""

from __future__ import annotations

import select
from time import monotonic

from tetrad.system.timers import LONGEST_WAIT_SECONDS, Timers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SECONDS = 0.1
"""The delay before a retry of what failed for lack of memory, descriptors or watches."""

IDLE_SECONDS = 0.001
"""How long nothing must happen before the idle task runs: a client that connects comes first."""


class EventLoop:
    """Calls the watchers of readable descriptors, and the timers that are due.

    `highest_fd` is the highest open descriptor: children close the descriptors up to it.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, Callable[[int], object]] = {}
        self._unwatched: set[int] = set()
        self.highest_fd = self._epoll.fileno()
        self.timers = Timers()

    def watch(
        self, fd: int, watcher: Callable[[int], object], events: int = select.EPOLLIN
    ) -> None:
        """Call `watcher` with `fd` whenever it is readable or the other end is closed."""
        self._watchers[fd] = watcher
        self.track_fd(fd)
        self._register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Stop watching. To be called before closing: epoll reports a copy that a child has."""
        if self._watchers.pop(fd, None) is not None:
            self._unregister(fd)
            self._unwatched.add(fd)

    def suspend(self, fd: int) -> None:
        """Stop watching for RETRY_SECONDS: the descriptor is readable but cannot be served now."""
        self._unregister(fd)
        self._register_later(fd, select.EPOLLIN)

    def track_fd(self, fd: int) -> None:
        """Include a descriptor in `highest_fd`."""
        self.highest_fd = max(self.highest_fd, fd)

    def run_once(self, *, has_idle_task: bool) -> bool:
        """Wait for events, call the watchers, then run the timers that are due.

        With `has_idle_task` the wait is IDLE_SECONDS. Returns whether a descriptor was readable; if
        none was, the caller runs its idle task.
        """
        timers = self.timers
        wait = IDLE_SECONDS if has_idle_task else timers.next_due - monotonic()
        if wait < 0:
            wait = 0.0
        elif wait > LONGEST_WAIT_SECONDS:
            wait = LONGEST_WAIT_SECONDS
        # A watcher may close a descriptor, and another may open a new one with the same number in
        # the same turn: the old event must not reach the new watcher.
        if self._unwatched:
            self._unwatched.clear()
        events = self._epoll.poll(wait)
        for fd, _ in events:
            watcher = self._watchers.get(fd)
            if watcher is not None and fd not in self._unwatched:
                watcher(fd)
        now = monotonic()
        if timers.next_due <= now:
            timers.run(now)
        return events != []

    def _register(self, fd: int, events: int) -> None:
        """Register with epoll; retry if the kernel is out of memory or watches."""
        try:
            self._epoll.register(fd, events)
        except OSError:
            self._register_later(fd, events)

    def _register_later(self, fd: int, events: int) -> None:
        when = monotonic() + RETRY_SECONDS
        self.timers.set(f"watch {fd}", when, lambda: self._register(fd, events))

    def _unregister(self, fd: int) -> None:
        if f"watch {fd}" in self.timers:
            self.timers.cancel(f"watch {fd}")
        else:
            self._epoll.unregister(fd)
