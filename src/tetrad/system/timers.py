"""Things to do later, each under a name. There are never more than a handful."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = float("inf")

LONGEST_WAIT_SECONDS = 86400.0
"""The kernel counts a wait in milliseconds, which have 32 bits: of a month there are too many."""


class Timers:
    """Moments of the monotonic clock, in seconds, and what is to be done at them.

    `due` is the next of these moments.
    """

    __slots__ = ("_set", "due")

    def __init__(self) -> None:
        self._set: dict[str, tuple[float, Callable[[], object]]] = {}
        self.due = NEVER

    def __contains__(self, name: str) -> bool:
        """Whether a timer of that name is running."""
        return name in self._set

    def set(self, name: str, when: float, action: Callable[[], object]) -> None:
        """Do `action` at `when`, instead of what the timer of that name was to do."""
        self.cancel(name)
        self._set[name] = (when, action)
        self.due = min(self.due, when)

    def cancel(self, name: str) -> None:
        """Do not do it."""
        cancelled = self._set.pop(name, None)
        if cancelled is not None and cancelled[0] <= self.due:
            self._reckon()

    def run(self, now: float) -> None:
        """Do what is due."""
        for name, timer in list(self._set.items()):
            when, action = timer
            # The action of another may have cancelled it, or set it anew.
            if when <= now and self._set.get(name) is timer:
                del self._set[name]
                action()
        self._reckon()

    def _reckon(self) -> None:
        self.due = min((when for when, _ in self._set.values()), default=NEVER)
