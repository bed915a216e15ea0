"""The signals that are blocked during a fork."""

from __future__ import annotations

import signal

from tetrad.system import fork


def blocked() -> set[int]:
    """Return which of the master's signals are blocked."""
    return {
        int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    } & fork.MASTER_SIGNALS


def test_signals_are_unblocked_after_forking() -> None:
    """Even without a task."""
    assert fork.fork_each([], 6, 0, print) == ([], None)
    assert blocked() == set()


def test_signals_that_the_caller_blocks_stay_blocked() -> None:
    """Forking restores the previous signal mask."""
    with fork.signals_blocked:
        fork.fork_each([], 6, 0, print)
        assert blocked() == fork.MASTER_SIGNALS
    assert blocked() == set()
