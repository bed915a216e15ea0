"""Admission: access lists, limits and rates decide whether a client is admitted. No I/O."""

from __future__ import annotations

from tetrad.ipc.access_list import AccessList
from tetrad.system.addresses import IPV4_BITS, IPV6_BITS
from tetrad.system.timers import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetrad.ipc.runtime_config import AccessRule, LimitsConfig
    from tetrad.system.addresses import Source

SOURCE_PREFIX = 64
"""A source is an IPv4 address or an IPv6 /64: a host that has one address there has all of them."""

RESERVE = 10
"""One in so many places is kept free, as far as clients that have sent no command can give way."""

MAX_BUCKETS = 65536
"""The most sources whose rates are remembered; at least the half that was admitted last."""

CRASHES, CRASHES_SECONDS = 10, 600
"""How many handlers of one source may crash, at once or spread out over this time.

All handlers are copies of the master, with their memory at the same addresses, and a client that
guesses these crashes a handler with each wrong guess.
"""


class Admission:
    """Decides about clients one by one, and counts those that are admitted.

    With `crowded_from` clients or more, those that have sent no command give way.
    """

    def __init__(self, limits: LimitsConfig, access: Iterable[AccessRule]) -> None:
        self._from_source: dict[Source, int] = {}
        self._is_stopped = False
        self._crashes: RateLimiter | None = None
        self.clients = 0
        self.configure(limits, access)

    def configure(self, limits: LimitsConfig, access: Iterable[AccessRule]) -> None:
        """Decide by other limits and rules. Counts of clients are kept, rates start anew."""
        self._limits = limits
        self._max_clients = limits["clients"]
        self._max_per_source = most = limits["clients_per_source"]
        self._exempt = AccessList(limits["exempt"])
        self._access = AccessList(access)
        rate = limits["rate_per_source"]
        self._rates = None if rate is None else RateLimiter(*rate)
        # With fewer clients than that, no source can have as many: most sessions need no call.
        always = rate is not None or self._crashes is not None
        self._sources_checked_from = 0 if always else self._max_clients if most is None else most
        reserve = self._max_clients // RESERVE
        self.crowded_from = self._max_clients - reserve if reserve else NEVER

    def stop(self) -> None:
        """Refuse every client from now on."""
        self._is_stopped = True

    def allows(self, address: Source | None) -> bool:
        """Tell whether the access lists allow an address; None, of a Unix socket, is allowed."""
        if address is None:
            return True
        bits, number = address
        return self._access.allows(bits, number)

    def denying_rule(self, address: Source | None) -> str | None:
        """Return the name of the rule by which the access lists deny an address."""
        return None if address is None else self._access.denying_rule(address)

    def refusal_reason(self, address: Source | None, now: float) -> str | None:
        """Return the reason why a client is refused, as the log has it; None if it is admitted.

        `now` is in seconds of the monotonic clock. A client that is admitted has used some of the
        rate of its source.
        """
        if self._is_stopped:
            return "stopping"
        if not self.allows(address):
            return "access"
        if self.clients >= self._max_clients:
            return "clients"
        if self.clients >= self._sources_checked_from and address is not None:
            return self._source_refusal(address, now)
        return None

    def _source_refusal(self, address: Source, now: float) -> str | None:
        source, most = source_of(address), self._max_per_source
        is_full = most is not None and self._from_source.get(source, 0) >= most
        if is_full and self._most_of(address) is not None:
            return "clients_per_source"
        has_crashes = self._crashes is not None and self._crashes.wait(source, now) > 0
        if has_crashes and self._most_of(address) is not None:
            return "crashes"
        if self._rates is not None and not self._rates.consume(source, now):
            return "rate"
        return None

    def _most_of(self, address: Source) -> int | None:
        """Return the most clients that the source of an address may have; None: no limit."""
        return None if self._exempt.rule(*address) else self._max_per_source

    def report(self, address: Source, now: float) -> dict[str, object]:
        """Return what would decide about a client with this address; nothing is counted."""
        source = source_of(address)
        rates, crashes = self._rates, self._crashes
        return {
            "access": self.allows(address),
            **self._access.report(address),
            "clients": self.clients,
            "clients_limit": self._limits["clients"],
            "from_source": self._from_source.get(source, 0),
            "from_source_limit": self._most_of(address),
            "rate_limit": self._limits["rate_per_source"],
            "wait": 0.0 if rates is None else rates.wait(source, now),
            "crash_wait": 0.0 if crashes is None else crashes.wait(source, now),
        }

    def count_crash(self, address: Source | None, now: float) -> None:
        """Count a handler that has crashed with a client of this address."""
        if address is None or self._most_of(address) is None:
            return
        if self._crashes is None:
            self._crashes = RateLimiter(CRASHES, CRASHES_SECONDS)
            self._sources_checked_from = 0
        self._crashes.consume(source_of(address), now)

    def add_client(self, address: Source | None) -> None:
        """Count a client that was admitted."""
        self.clients += 1
        if address is not None:
            source = source_of(address)
            self._from_source[source] = self._from_source.get(source, 0) + 1

    def remove_client(self, address: Source | None) -> None:
        """Count a client that has left."""
        self.clients -= 1
        if address is not None:
            source = source_of(address)
            left = self._from_source[source] - 1
            if left:
                self._from_source[source] = left
            else:
                del self._from_source[source]


class RateLimiter:
    """A token bucket for each source: `count` clients in `seconds`, at once or spread out.

    A bucket is stored as the one moment at which it will be full again. There are two tables: when
    the recent one has grown to half of MAX_BUCKETS, it replaces the older one, which is dropped. So
    a flood of sources costs the same little for each of them.
    """

    def __init__(self, count: int, seconds: int) -> None:
        self._interval = seconds / count
        # A millionth of tolerance: a burst is a sum of intervals, which are not exact.
        self._burst = seconds + self._interval * 1e-6
        self._recent: dict[Source, float] = {}
        self._older: dict[Source, float] = {}

    def wait(self, source: Source, now: float) -> float:
        """Return the seconds until a client of the source is admitted; 0 if it is at once."""
        return max(0.0, self._full_at(source, now) - now - self._burst)

    def consume(self, source: Source, now: float) -> bool:
        """Admit one more client of the source, unless its rate is used up."""
        if self.wait(source, now) > 0:
            return False
        full_at = self._full_at(source, now)
        if len(self._recent) >= MAX_BUCKETS // 2:
            self._older, self._recent = self._recent, {}
        self._recent[source] = full_at
        return True

    def __len__(self) -> int:
        """Return the number of remembered buckets; a source may count twice."""
        return len(self._recent) + len(self._older)

    def _full_at(self, source: Source, now: float) -> float:
        """Return when the source's bucket would be full again if one more client came now."""
        known = self._recent.get(source) or self._older.get(source, now)
        return max(known, now) + self._interval


def source_of(address: Source) -> Source:
    """Return the source that limits count an address by: the address, or its IPv6 /64."""
    if address[0] == IPV4_BITS:
        return address
    return IPV6_BITS, address[1] >> (IPV6_BITS - SOURCE_PREFIX)
