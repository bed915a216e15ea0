"""One change at a time: a reload and an upgrade exclude each other here, and only here."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class ChangeQueue:
    """Starts changes of the running daemon one after another, in the order of `submit`.

    `on_start` is called before each change, `on_end` after each; neither once it `is_closed`.
    """

    def __init__(self, on_start: Callable[[], object], on_end: Callable[[], object]) -> None:
        self._on_start = on_start
        self._on_end = on_end
        self._waiting: list[Callable[[], object]] = []
        self._is_running = False
        self.is_closed = False

    def submit(self, change: Callable[[], object]) -> None:
        """Call `change` when no other change runs; it must lead to one call of `finish`."""
        self._waiting.append(change)
        self._start_next()

    def finish(self) -> None:
        """End the running change, and start the next one."""
        self._is_running = False
        if not self.is_closed:
            self._on_end()
            self._start_next()

    def close(self) -> None:
        """Start no further change: the daemon stops."""
        self.is_closed = True

    def _start_next(self) -> None:
        if self._waiting and not self._is_running and not self.is_closed:
            self._is_running = True
            self._on_start()
            self._waiting.pop(0)()
