"""The log lines of the commands of one session, within a budget (`log.session_rate`).

One client can send commands faster than a disk takes lines. The commands beyond the budget are
counted, and the log gets their number instead: one line a second with `suppressed`, and one before
the end of the session.
"""

from __future__ import annotations

from time import monotonic

from tetrad.ipc.log_protocol import LEVELS
from tetrad.system.timers import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.log_protocol import LogWriter

BURST = 10
"""A session that has been quiet may log this many times the count of its rate at once."""

SUMMARY_SECONDS = 1.0
"""How long suppressed lines are counted before their number is logged."""


class CommandLog:
    """Logs commands, valid or not, at a `rate`: a count and a period in seconds; None: all of them.

    `logged` lines of the session are in the log already. `summary_due` is when the number of
    suppressed lines is due, in seconds of the monotonic clock.
    """

    __slots__ = ("_burst", "_full_at", "_interval", "_log", "_suppressed", "summary_due")

    def __init__(self, log: LogWriter, rate: tuple[int, int] | None, logged: int) -> None:
        self._log = log
        self._interval = 0.0 if rate is None else rate[1] / rate[0]
        self._burst = BURST * (0.0 if rate is None else rate[1])
        # A token bucket, stored as the moment at which it will be full again.
        self._full_at = monotonic() + logged * self._interval
        self._suppressed: dict[tuple[str, str], int] = {}
        self.summary_due = NEVER

    def add(self, level: str, event: str, *fields: str) -> None:
        """Log an event for each of `fields`, JSON members; count those beyond the budget."""
        if LEVELS[level] < self._log.level:
            return
        shown = len(fields)
        if self._interval:
            shown = self._take(shown)
        self._log.event_json(level, event, *fields[:shown])
        if shown < len(fields):
            before = self._suppressed.get((level, event), 0)
            self._suppressed[level, event] = before + len(fields) - shown

    def _take(self, count: int) -> int:
        """Take up to `count` lines from the budget, and return how many were left in it."""
        now = monotonic()
        full_at = max(self._full_at, now)
        # A millionth of tolerance: a burst is a sum of intervals, which are not exact.
        left = int((now + self._burst - full_at) / self._interval + 1e-6)
        taken = min(count, max(left, 0))
        self._full_at = full_at + taken * self._interval
        if taken < count and self.summary_due == NEVER:
            self.summary_due = now + SUMMARY_SECONDS
        return taken

    def summarise(self) -> None:
        """Log how many lines were suppressed since the last summary, if there are any."""
        for (level, event), count in self._suppressed.items():
            self._log.event(level, event, suppressed=count)
        self._suppressed.clear()
        self.summary_due = NEVER
