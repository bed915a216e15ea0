"""Things to do later, each under a name. There are never more than a handful."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT_SECONDS = 86400.0
"""The kernel counts a wait in milliseconds, which have 32 bits: of a month there are too many."""


class Timers:
    """Moments of the monotonic clock, in seconds, and what is to be done at them."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        self._set: dict[str, tuple[float, Callable[[], object]]] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a timer of that name is running."""
        return name in self._set

    def set(self, name: str, when: float, action: Callable[[], object]) -> None:
        """Do `action` at `when`, instead of what the timer of that name was to do."""
        self._set[name] = (when, action)

    def cancel(self, name: str) -> None:
        """Do not do it."""
        self._set.pop(name, None)

    def timeout(self, now: float) -> float | None:
        """Return the seconds until the next one, or a day, or None if there is none."""
        if not self._set:
            return None
        wait = min(when for when, _ in self._set.values()) - now
        return min(max(0.0, wait), LONGEST_WAIT_SECONDS)

    def run(self, now: float) -> None:
        """Do what is due."""
        for name, (when, action) in list(self._set.items()):
            if when <= now:
                del self._set[name]
                action()
