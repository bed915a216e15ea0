"""Clients that were refused: counted by reason, and logged no faster than a person can read."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REASONS = ("access", "clients", "clients_per_source", "rate", "stopping", "resources", "proxy")

LINES_PER_WINDOW = 10
WINDOW_SECONDS = 1.0


class RefusalLog:
    """Counts per reason; in a window of one second a reason gets ten lines of its own."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(REASONS, 0)
        self._shown: dict[str, int] = {}
        self._hidden: dict[str, int] = {}
        self._window_ends = 0.0

    def add(self, reason: str, now: float) -> bool:
        """Count one; True if it is to have a line, else it is in a later `summary`."""
        self.counts[reason] += 1
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_SECONDS
            self._shown.clear()
        shown = self._shown.get(reason, 0)
        if shown < LINES_PER_WINDOW:
            self._shown[reason] = shown + 1
            return True
        self._hidden[reason] = self._hidden.get(reason, 0) + 1
        return False

    @property
    def suppressed_due(self) -> float | None:
        """When those without a line are to be summed up, if there are any."""
        return self._window_ends if self._hidden else None

    def take_suppressed(self) -> Iterator[tuple[str, int]]:
        """Return the reasons and counts of those without a line, once."""
        hidden, self._hidden = self._hidden, {}
        yield from hidden.items()
