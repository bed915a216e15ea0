"""The handlers and their clients. Bookkeeping only, no I/O."""

from __future__ import annotations

from tetrad.master.connections import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator


class HandlerProcess:
    """One handler. It has no `client` while it waits on `channel` for the next one.

    Its number is never used again, unlike its pid, and is known before the fork. There may be
    thousands, and every fork copies the page tables of all the memory that they take: so the client
    is kept packed. It was assigned at `since`, in seconds of the monotonic clock.
    """

    __slots__ = ("channel", "number", "packed_client", "pid", "since")

    def __init__(
        self,
        number: int,
        pid: int,
        channel: _socket.socket | None,
        packed_client: bytes | None = None,
        since: float = 0.0,
    ) -> None:
        self.number = number
        self.pid = pid
        self.channel = channel
        self.packed_client = packed_client
        self.since = since

    @property
    def client(self) -> Client | None:
        """The client that is being served."""
        return None if self.packed_client is None else Client.unpack(self.packed_client)

    def assign(self, client: Client, now: float) -> None:
        """Note that the handler has a client, from `now` on."""
        self.packed_client = client.pack()
        self.since = now


class HandlerTable:
    """All handlers by number, and those that are `waiting` for a client, the latest last."""

    def __init__(self) -> None:
        self._all: dict[int, HandlerProcess] = {}
        self.waiting: dict[int, HandlerProcess] = {}
        self._to_check: list[HandlerProcess] = []
        self._to_draw: list[HandlerProcess] = []

    def __len__(self) -> int:
        """Return the number of handlers."""
        return len(self._all)

    def __iter__(self) -> Iterator[HandlerProcess]:
        """Iterate over a copy: handlers may be added and removed meanwhile."""
        return iter(list(self._all.values()))

    @property
    def idle(self) -> int:
        """The number of handlers that wait for a client."""
        return len(self.waiting)

    def add(self, handler: HandlerProcess) -> None:
        """Add a new handler."""
        self._all[handler.number] = handler

    def find(self, number: int) -> HandlerProcess | None:
        """Return a handler by its number, None if it has been removed."""
        return self._all.get(number)

    def mark_idle(self, handler: HandlerProcess) -> None:
        """Note that a handler waits for its next client."""
        handler.packed_client = None
        self.waiting[handler.number] = handler

    def pop_idle(self) -> HandlerProcess | None:
        """Return the handler that has waited least, whose memory is warmest; None if none waits."""
        return self.waiting.popitem()[1] if self.waiting else None

    def pop_longest_idle(self) -> HandlerProcess | None:
        """Return the handler that has waited longest; None if none waits."""
        return self.waiting.pop(next(iter(self.waiting))) if self.waiting else None

    def remove(self, handler: HandlerProcess) -> None:
        """Remove a handler that has exited."""
        del self._all[handler.number]
        self.waiting.pop(handler.number, None)

    def next_to_check(self, most: int) -> list[HandlerProcess]:
        """Return up to `most` handlers, others at each call until all have been returned."""
        if not self._to_check:
            self._to_check = list(self._all.values())
        chosen = self._to_check[-most:]
        del self._to_check[-most:]
        return [handler for handler in chosen if handler.number in self._all]

    def draw(self, number: int) -> HandlerProcess | None:
        """Return the handler that a random number selects; each once, until all have been drawn."""
        if not self._to_draw:
            self._to_draw = list(self._all.values())
        drawn: HandlerProcess | None = None
        while self._to_draw and drawn is None:
            index, last = number % len(self._to_draw), self._to_draw.pop()
            if index < len(self._to_draw):
                last, self._to_draw[index] = self._to_draw[index], last
            drawn = self._all.get(last.number)
        return drawn
