"""Who is in: the handlers, their clients, and what became of them. Bookkeeping, no I/O."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator

    from tetrad.admission import Source
    from tetrad.handler import Admitted


class Child:
    """One handler. `client` is None while it waits for its next one, on `channel`."""

    __slots__ = ("address", "channel", "client", "pid", "pidfd", "since")

    def __init__(self, pid: int, channel: _socket.socket | None) -> None:
        self.pid = pid
        self.pidfd: int | None = None
        self.channel = channel
        self.client: Admitted | None = None
        self.address: Source | None = None
        self.since = 0.0

    def take(self, client: Admitted, address: Source | None, now: float) -> None:
        """Have a client, since `now` in seconds of the monotonic clock."""
        self.client = client
        self.address = address
        self.since = now


class Children:
    """All handlers, by pid and by pidfd, and those of them that wait, the latest last."""

    def __init__(self) -> None:
        self._by_pid: dict[int, Child] = {}
        self._by_pidfd: dict[int, Child] = {}
        self._idle: dict[int, Child] = {}

    def __len__(self) -> int:
        """How many handlers there are."""
        return len(self._by_pid)

    def __iter__(self) -> Iterator[Child]:
        """Go through a copy, so that they may come and go meanwhile."""
        return iter(list(self._by_pid.values()))

    @property
    def idle(self) -> int:
        """How many wait for a client."""
        return len(self._idle)

    def register(self, child: Child) -> None:
        """Take note of a new handler."""
        self._by_pid[child.pid] = child

    def track(self, child: Child) -> None:
        """Take note of the descriptor that tells of a handler's end."""
        if child.pidfd is not None:
            self._by_pidfd[child.pidfd] = child

    def by_pid(self, pid: int) -> Child | None:
        """Find a handler."""
        return self._by_pid.get(pid)

    def by_pidfd(self, pidfd: int) -> Child | None:
        """Find a handler by the descriptor that tells of its end."""
        return self._by_pidfd.get(pidfd)

    def rest(self, child: Child) -> None:
        """Take note that a handler waits for its next client."""
        child.client = None
        self._idle[child.pid] = child

    def wake(self) -> Child | None:
        """Return the handler that has waited least, whose memory is the warmest, if any waits."""
        return self._idle.popitem()[1] if self._idle else None

    def idlest(self) -> Child | None:
        """Return the handler that has waited longest, and let it wait no more."""
        return self._idle.pop(next(iter(self._idle))) if self._idle else None

    def forget(self, child: Child) -> None:
        """Take note that a handler is gone."""
        del self._by_pid[child.pid]
        self._idle.pop(child.pid, None)
        if child.pidfd is not None:
            del self._by_pidfd[child.pidfd]
