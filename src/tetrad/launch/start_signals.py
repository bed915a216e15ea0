"""Signals that come while a daemon is being started: noted, so that the start is undone in order.

A start that died where it stands would leave behind what it had made, and what it had forked.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Self

from tetrad.system.fork import MASTER_SIGNALS

if TYPE_CHECKING:
    from types import TracebackType

HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):  # noqa: N818 - an order, not an error
    """The start was interrupted, and is undone; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}: the start is undone")
        self.number = number


class StartSignals:
    """From when this is entered, the first signal is noted; a second one does what it always did.

    A signal that is ignored, as behind nohup(1), stays so.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self.number: int | None = None

    def __enter__(self) -> Self:
        """Begin to take note."""
        for number in HEEDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take note no more, but of a start that succeeded: it comes too late to be undone.

        There is a daemon then, and whoever is about to say so must not be ended first.
        """
        if error is not None:
            self._give_back()

    def check(self) -> None:
        """Raise Interrupted if there was a signal."""
        if self.number is not None:
            raise Interrupted(self.number)

    def pass_on(self) -> None:
        """Keep what comes from now on for the program that this process becomes.

        Raises Interrupted if there was a signal before.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, MASTER_SIGNALS)
        self.check()

    def _note(self, number: int, _frame: object) -> None:
        self.number = number
        self._give_back()

    def _give_back(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
