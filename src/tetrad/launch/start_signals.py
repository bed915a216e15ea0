"""Signals during a start: recorded, so that the start removes what it created and then ends.

A start that a signal kills would leave its files behind, and the daemon that it has forked.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Self

from tetrad.system.fork import MASTER_SIGNALS

if TYPE_CHECKING:
    from types import TracebackType

INTERRUPTING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """A signal interrupted the start, which is undone; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}: the start is undone")
        self.number = number


class StartSignals:
    """Within the block, the first signal is recorded; a second one has its usual effect.

    A signal that is ignored, as behind nohup(1), stays ignored.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}
        self.number: int | None = None

    def __enter__(self) -> Self:
        """Begin to record signals."""
        for number in INTERRUPTING_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop recording if the start failed.

        After a successful start a signal comes too late to undo it, and must not end the command
        before it has printed that the daemon runs.
        """
        if error is not None:
            self._restore()

    def check(self) -> None:
        """Raise Interrupted if a signal was recorded."""
        if self.number is not None:
            raise Interrupted(self.number)

    def block(self) -> None:
        """Block the master's signals from now on: the master unblocks and handles them.

        Raises Interrupted if a signal was recorded before.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, MASTER_SIGNALS)
        self.check()

    def _record(self, number: int, _frame: object) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous.clear()
