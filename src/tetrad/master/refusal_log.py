"""Refused clients: counted by reason, with a limited number of log lines a second."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REASONS = (
    "access",
    "clients",
    "clients_per_source",
    "crashes",
    "rate",
    "stopping",
    "resources",
    "proxy",
)

LINES_PER_WINDOW = 10
WINDOW_SECONDS = 1.0


class RefusalLog:
    """Counts refusals by reason. Each reason gets ten lines of its own in a second."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(REASONS, 0)
        self._logged: dict[str, int] = {}
        self._suppressed: dict[str, int] = {}
        self._window_ends = 0.0

    def add(self, reason: str, now: float) -> bool:
        """Count a refusal; True if it gets a line, False if it is in a later `take_suppressed`.

        `now` is in seconds of the monotonic clock.
        """
        self.counts[reason] += 1
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_SECONDS
            self._logged.clear()
        logged = self._logged.get(reason, 0)
        if logged < LINES_PER_WINDOW:
            self._logged[reason] = logged + 1
            return True
        self._suppressed[reason] = self._suppressed.get(reason, 0) + 1
        return False

    @property
    def suppressed_due(self) -> float | None:
        """When the refusals without a line are due to be logged; None if there are none."""
        return self._window_ends if self._suppressed else None

    def take_suppressed(self) -> Iterator[tuple[str, int]]:
        """Yield each reason with its refusals without a line, and start at zero again."""
        suppressed, self._suppressed = self._suppressed, {}
        yield from suppressed.items()
