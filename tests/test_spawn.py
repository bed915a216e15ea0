"""Forking, as far as it can be tried in a process of the tests' own."""

from __future__ import annotations

import signal

from tetrad import spawn


def held() -> set[int]:
    """Return which of the master's signals are blocked now."""
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())} & spawn.ORDERS


def test_signals_are_let_through_after_a_row_of_forks() -> None:
    """Even if there was nobody to fork for."""
    assert spawn.fork_each([], 0) == ([], None)
    assert held() == set()


def test_signals_that_somebody_holds_stay_held() -> None:
    """A row of forks ends its own hold, not that of who asked for it."""
    with spawn.SIGNALS_HELD:
        spawn.fork_each([], 0)
        assert held() == spawn.ORDERS
    assert held() == set()
