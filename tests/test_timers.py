"""Timers: what is due is done, once, and nothing else."""

from __future__ import annotations

from tetrad.system.timers import NEVER, Timers


def test_without_timers_there_is_nothing_to_wait_for() -> None:
    """A loop without timers may wait for ever."""
    assert Timers().due == NEVER


def test_the_next_timer_is_the_earliest() -> None:
    """Whatever is set, done or cancelled, `due` is the earliest moment that is left."""
    timers = Timers()
    moments = []
    timers.set("late", 20.0, list)
    moments.append(timers.due)
    timers.set("soon", 12.5, list)
    moments.append(timers.due)
    timers.set("soon", 30.0, list)
    moments.append(timers.due)
    timers.run(20.0)
    moments.append(timers.due)
    timers.cancel("soon")
    assert [*moments, timers.due] == [20.0, 12.5, 20.0, 30.0, NEVER]


def test_what_an_action_cancels_or_sets_anew_is_not_done() -> None:
    """Though it was due as well: the later word counts."""
    timers = Timers()
    done: list[str] = []

    def first() -> None:
        done.append("first")
        timers.cancel("second")
        timers.set("third", 9.0, lambda: done.append("third, later"))

    timers.set("first", 1.0, first)
    timers.set("second", 1.0, lambda: done.append("second"))
    timers.set("third", 1.0, lambda: done.append("third"))
    timers.run(2.0)
    assert (done, timers.due) == (["first"], 9.0)


def test_what_is_due_is_done_once() -> None:
    """A timer goes off at its moment, not before, and is gone then."""
    timers = Timers()
    done: list[str] = []
    timers.set("tea", 10.0, lambda: done.append("tea"))
    timers.run(9.999)
    assert (done, "tea" in timers) == ([], True)
    timers.run(10.0)
    timers.run(11.0)
    assert (done, "tea" in timers) == (["tea"], False)


def test_only_what_is_due_is_done() -> None:
    """Timers of other moments stay."""
    timers = Timers()
    done: list[str] = []
    timers.set("one", 1.0, lambda: done.append("one"))
    timers.set("two", 2.0, lambda: done.append("two"))
    timers.set("three", 3.0, lambda: done.append("three"))
    timers.run(2.0)
    assert (done, timers.due) == (["one", "two"], 3.0)


def test_a_timer_set_again_replaces_the_first() -> None:
    """A name has one moment and one action, the latest."""
    timers = Timers()
    done: list[str] = []
    timers.set("tea", 10.0, lambda: done.append("green"))
    timers.set("tea", 5.0, lambda: done.append("black"))
    timers.run(20.0)
    assert done == ["black"]


def test_a_cancelled_timer_does_not_go_off() -> None:
    """What was cancelled is not done, and to cancel what is not there is no error."""
    timers = Timers()
    done: list[str] = []
    timers.set("tea", 10.0, lambda: done.append("tea"))
    timers.cancel("tea")
    timers.cancel("tea")
    timers.run(20.0)
    assert (done, "tea" in timers) == ([], False)


def test_an_action_may_set_its_own_timer_again() -> None:
    """Who sets itself again goes off again, but not in the same run."""
    timers = Timers()
    done: list[float] = []

    def tick() -> None:
        done.append(1.0)
        timers.set("tick", 0.0, tick)

    timers.set("tick", 0.0, tick)
    timers.run(1.0)
    assert (len(done), "tick" in timers) == (1, True)


def test_an_action_may_cancel_itself() -> None:
    """A timer that goes off is gone before its action is done."""
    timers = Timers()
    timers.set("tea", 10.0, lambda: timers.cancel("tea"))
    timers.run(10.0)
    assert "tea" not in timers
