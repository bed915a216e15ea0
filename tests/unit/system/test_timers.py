"""Timers: each runs once when it is due."""

from __future__ import annotations

from tetrad.system.timers import NEVER, Timers


def test_without_timers_no_moment_is_due() -> None:
    """A loop without timers may wait for ever."""
    assert Timers().next_due == NEVER


def test_the_next_timer_is_the_earliest() -> None:
    """After every change, `next_due` is the earliest moment that remains."""
    timers = Timers()
    moments = []
    timers.set("late", 20.0, list)
    moments.append(timers.next_due)
    timers.set("early", 12.5, list)
    moments.append(timers.next_due)
    timers.set("early", 30.0, list)
    moments.append(timers.next_due)
    timers.run(20.0)
    moments.append(timers.next_due)
    timers.cancel("early")
    assert [*moments, timers.next_due] == [20.0, 12.5, 20.0, 30.0, NEVER]


def test_an_action_can_cancel_or_replace_other_timers() -> None:
    """Even timers that are due in the same run."""
    timers = Timers()
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        timers.cancel("second")
        timers.set("third", 9.0, lambda: calls.append("third, replaced"))

    timers.set("first", 1.0, first)
    timers.set("second", 1.0, lambda: calls.append("second"))
    timers.set("third", 1.0, lambda: calls.append("third"))
    timers.run(2.0)
    assert (calls, timers.next_due) == (["first"], 9.0)


def test_a_timer_runs_once_when_it_is_due() -> None:
    """Not before, and it is removed then."""
    timers = Timers()
    calls: list[str] = []
    timers.set("timer", 10.0, lambda: calls.append("timer"))
    timers.run(9.999)
    assert (calls, "timer" in timers) == ([], True)
    timers.run(10.0)
    timers.run(11.0)
    assert (calls, "timer" in timers) == (["timer"], False)


def test_only_due_timers_run() -> None:
    """Later timers stay set."""
    timers = Timers()
    calls: list[str] = []
    timers.set("one", 1.0, lambda: calls.append("one"))
    timers.set("two", 2.0, lambda: calls.append("two"))
    timers.set("three", 3.0, lambda: calls.append("three"))
    timers.run(2.0)
    assert (calls, timers.next_due) == (["one", "two"], 3.0)


def test_a_timer_set_again_replaces_the_first() -> None:
    """A name has one timer, the latest."""
    timers = Timers()
    calls: list[str] = []
    timers.set("timer", 10.0, lambda: calls.append("first"))
    timers.set("timer", 5.0, lambda: calls.append("second"))
    timers.run(20.0)
    assert calls == ["second"]


def test_a_cancelled_timer_does_not_run() -> None:
    """Cancelling a timer that is not set is no error."""
    timers = Timers()
    calls: list[str] = []
    timers.set("timer", 10.0, lambda: calls.append("timer"))
    timers.cancel("timer")
    timers.cancel("timer")
    timers.run(20.0)
    assert (calls, "timer" in timers) == ([], False)


def test_an_action_may_set_its_own_timer_again() -> None:
    """It runs again, but not in the same run."""
    timers = Timers()
    calls: list[float] = []

    def tick() -> None:
        calls.append(1.0)
        timers.set("tick", 0.0, tick)

    timers.set("tick", 0.0, tick)
    timers.run(1.0)
    assert (len(calls), "tick" in timers) == (1, True)


def test_an_action_may_cancel_itself() -> None:
    """A timer is removed before its action runs."""
    timers = Timers()
    timers.set("timer", 10.0, lambda: timers.cancel("timer"))
    timers.run(10.0)
    assert "timer" not in timers
