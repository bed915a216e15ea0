"""Named timers on the monotonic clock. The master has only a few, so a dict is enough."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = float("inf")

LONGEST_WAIT_SECONDS = 86400.0
"""The kernel takes a timeout as 32 bits of milliseconds, which hold less than 25 days."""


class Timers:
    """Timers by name, each with a moment of the monotonic clock in seconds, and an action.

    `next_due` is the earliest of these moments.
    """

    __slots__ = ("_timers", "next_due")

    def __init__(self) -> None:
        self._timers: dict[str, tuple[float, Callable[[], object]]] = {}
        self.next_due = NEVER

    def __contains__(self, name: str) -> bool:
        """Whether a timer of that name is set."""
        return name in self._timers

    def set(self, name: str, when: float, action: Callable[[], object]) -> None:
        """Call `action` at `when`; this replaces the timer of that name."""
        self.cancel(name)
        self._timers[name] = (when, action)
        self.next_due = min(self.next_due, when)

    def cancel(self, name: str) -> None:
        """Remove a timer, if it is set."""
        cancelled = self._timers.pop(name, None)
        if cancelled is not None and cancelled[0] <= self.next_due:
            self._update_next_due()

    def run(self, now: float) -> None:
        """Call the actions that are due at `now`. A timer is removed before its action runs."""
        for name, timer in list(self._timers.items()):
            when, action = timer
            # An earlier action may have cancelled or replaced this timer.
            if when <= now and self._timers.get(name) is timer:
                del self._timers[name]
                action()
        self._update_next_due()

    def _update_next_due(self) -> None:
        self.next_due = min((when for when, _ in self._timers.values()), default=NEVER)
