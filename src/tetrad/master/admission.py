"""Who may come in: access lists, limits and rates. No I/O: it is asked, and it is told."""

from __future__ import annotations

from tetrad.ipc.access_list import AccessList

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetrad.ipc.runtime_config import AccessRule, LimitsConfig
    from tetrad.system.addresses import Source

IPV4_BITS, IPV6_BITS = 32, 128
SOURCE_PREFIX = 64
"""An IPv6 source is a /64: whoever has one address there has them all."""

MOST_BUCKETS = 65536
"""How many sources' rates are remembered at most: of those that were let in last, at least half."""


class Admission:
    """Decides about clients one by one, and counts those that are in."""

    def __init__(self, limits: LimitsConfig, access: Iterable[AccessRule]) -> None:
        self._here: dict[Source, int] = {}
        self._is_over = False
        self.clients = 0
        self.configure(limits, access)

    def configure(self, limits: LimitsConfig, access: Iterable[AccessRule]) -> None:
        """Decide by these rules from now on. Who is in is remembered, how fast they came is not."""
        self._limits = limits
        self._most = limits["clients"]
        self._most_per_source = limits["clients_per_source"]
        self._access = AccessList(access)
        rate = limits["rate_per_source"]
        self._rates = None if rate is None else RateLimiter(*rate)
        self._looks_at_sources = self._most_per_source is not None or rate is not None

    def stop(self) -> None:
        """Let nobody in any more."""
        self._is_over = True

    def allows(self, address: Source | None) -> bool:
        """Tell whether the access lists let an address in; a Unix socket has none, and may."""
        if address is None:
            return True
        bits, number = address
        return self._access.allows(bits, number)

    def refusal_reason(self, address: Source | None, now: float) -> str | None:
        """Return why a client is refused, in the log's word, or None if it may come in.

        `now` is in seconds of the monotonic clock. What may come in has used up some of its
        source's rate.
        """
        if self._is_over:
            return "stopping"
        if not self.allows(address):
            return "access"
        if self.clients >= self._most:
            return "clients"
        if self._looks_at_sources and address is not None:
            return self._refusal_by_source(source_of(address), now)
        return None

    def _refusal_by_source(self, source: Source | None, now: float) -> str | None:
        most = self._most_per_source
        if source is None:
            return None
        if most is not None and self._here.get(source, 0) >= most:
            return "clients_per_source"
        if self._rates is not None and not self._rates.consume(source, now):
            return "rate"
        return None

    def report(self, address: Source, now: float) -> dict[str, object]:
        """Return what a client from there would meet, without letting it in."""
        source = source_of(address)
        wait = (
            0.0
            if self._rates is None or source is None
            else self._rates.seconds_until_allowed(source, now)
        )
        rule = self._access.rule(*address)
        return {
            "access": self.allows(address),
            "rule": None if rule is None else rule["name"],
            "clients": self.clients,
            "clients_limit": self._limits["clients"],
            "from_source": 0 if source is None else self._here.get(source, 0),
            "from_source_limit": self._limits["clients_per_source"],
            "rate_limit": self._limits["rate_per_source"],
            "wait": wait,
        }

    def add_client(self, address: Source | None) -> None:
        """Count a client in."""
        self.clients += 1
        source = source_of(address)
        if source is not None:
            self._here[source] = self._here.get(source, 0) + 1

    def remove_client(self, address: Source | None) -> None:
        """Count a client out."""
        self.clients -= 1
        source = source_of(address)
        if source is not None:
            left = self._here[source] - 1
            if left:
                self._here[source] = left
            else:
                del self._here[source]


class RateLimiter:
    """How fast each source may come: `count` in `seconds`, all at once or spread out.

    A source's bucket is kept as the one moment at which it will be full again. There are two tables
    of them: when the recent one has grown to half of what there may be, it takes the place of the
    one before, which is forgotten. So a flood of sources costs each of them the same little.
    """

    def __init__(self, count: int, seconds: int) -> None:
        self._interval = seconds / count
        self._burst = float(seconds)
        self._recent: dict[Source, float] = {}
        self._before: dict[Source, float] = {}

    def seconds_until_allowed(self, source: Source, now: float) -> float:
        """Return the seconds until a source may come again, which is 0 if it may."""
        # A millionth of leeway: a burst is a sum of intervals, which are not exact.
        full_in = self._full_at(source, now) - now
        return max(0.0, full_in - self._burst - self._interval * 1e-6)

    def consume(self, source: Source, now: float) -> bool:
        """Let one more in, if its source has not come too fast."""
        if self.seconds_until_allowed(source, now) > 0:
            return False
        full_at = self._full_at(source, now)
        if len(self._recent) >= MOST_BUCKETS // 2:
            self._before, self._recent = self._recent, {}
        self._recent[source] = full_at
        return True

    def __len__(self) -> int:
        """How many sources are remembered; one that came again may count twice."""
        return len(self._recent) + len(self._before)

    def _full_at(self, source: Source, now: float) -> float:
        """Return when a source's bucket would be full again if one more came in now."""
        known = self._recent.get(source) or self._before.get(source, now)
        return max(known, now) + self._interval


def source_of(address: Source | None) -> Source | None:
    """Return what limits count by: an IPv4 address, or the /64 of an IPv6 one."""
    if address is None or address[0] == IPV4_BITS:
        return address
    return IPV6_BITS, address[1] >> (IPV6_BITS - SOURCE_PREFIX)
