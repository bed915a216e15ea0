"""Who is in: the handlers, their clients, and what became of them. Bookkeeping, no I/O."""

from __future__ import annotations

from tetrad.master.connections import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator


class HandlerProcess:
    """One handler. It has no `client` while it waits for its next one, on `channel`.

    Its number is its own for ever, unlike its pid, and is known before it is forked. There may be
    thousands, and every fork copies the tables of all the memory that they take: so the client is
    `kept` as `Client.dump` makes it, and was taken at `since`, in seconds of the monotonic clock.
    """

    __slots__ = ("channel", "number", "packed_client", "pid", "since")

    def __init__(
        self,
        number: int,
        pid: int,
        channel: _socket.socket | None,
        kept: bytes | None = None,
        since: float = 0.0,
    ) -> None:
        self.number = number
        self.pid = pid
        self.channel = channel
        self.packed_client = kept
        self.since = since

    @property
    def client(self) -> Client | None:
        """Who is being served."""
        return None if self.packed_client is None else Client.unpack(self.packed_client)

    def assign(self, client: Client, now: float) -> None:
        """Have a client from `now` on."""
        self.packed_client = client.pack()
        self.since = now


class HandlerTable:
    """All handlers, by number, and those of them that are `waiting`, the latest last."""

    def __init__(self) -> None:
        self._all: dict[int, HandlerProcess] = {}
        self.waiting: dict[int, HandlerProcess] = {}
        self._to_check: list[HandlerProcess] = []

    def __len__(self) -> int:
        """How many handlers there are."""
        return len(self._all)

    def __iter__(self) -> Iterator[HandlerProcess]:
        """Go through a copy, so that they may come and go meanwhile."""
        return iter(list(self._all.values()))

    @property
    def idle(self) -> int:
        """How many wait for a client."""
        return len(self.waiting)

    def add(self, child: HandlerProcess) -> None:
        """Take note of a new handler."""
        self._all[child.number] = child

    def find(self, number: int) -> HandlerProcess | None:
        """Find a handler."""
        return self._all.get(number)

    def mark_idle(self, child: HandlerProcess) -> None:
        """Take note that a handler waits for its next client."""
        child.packed_client = None
        self.waiting[child.number] = child

    def pop_idle(self) -> HandlerProcess | None:
        """Return the handler that has waited least, whose memory is the warmest, if any waits."""
        return self.waiting.popitem()[1] if self.waiting else None

    def pop_longest_idle(self) -> HandlerProcess | None:
        """Return the handler that has waited longest, and let it wait no more."""
        return self.waiting.pop(next(iter(self.waiting))) if self.waiting else None

    def remove(self, child: HandlerProcess) -> None:
        """Take note that a handler is gone."""
        del self._all[child.number]
        self.waiting.pop(child.number, None)

    def next_to_check(self, most: int) -> list[HandlerProcess]:
        """Return up to `most` handlers, others each time until all have had their turn."""
        if not self._to_check:
            self._to_check = list(self._all.values())
        chosen = self._to_check[-most:]
        del self._to_check[-most:]
        return [child for child in chosen if child.number in self._all]
