"""Timers: what is due is done, once, and nothing else."""

from __future__ import annotations

from tetrad.timers import Timers


def test_without_timers_there_is_nothing_to_wait_for() -> None:
    """A loop without timers may wait for ever."""
    assert Timers().timeout(5.0) is None


def test_the_next_timer_says_how_long_to_wait() -> None:
    """The earliest counts, and what is overdue is not to be waited for."""
    timers = Timers()
    timers.set("late", 20.0, list)
    timers.set("soon", 12.5, list)
    assert timers.timeout(10.0) == 2.5
    assert timers.timeout(12.5) == 0.0
    assert timers.timeout(30.0) == 0.0


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
    assert done == ["one", "two"]
    assert timers.timeout(2.0) == 1.0


def test_a_timer_set_again_replaces_the_first() -> None:
    """A name has one moment and one action, the latest."""
    timers = Timers()
    done: list[str] = []
    timers.set("tea", 10.0, lambda: done.append("green"))
    timers.set("tea", 5.0, lambda: done.append("black"))
    timers.run(20.0)
    assert done == ["black"]


def test_nothing_is_waited_for_longer_than_a_day() -> None:
    """A moment that is years away is looked at again every day: the kernel cannot wait so long."""
    timers = Timers()
    timers.set("tea", 1e9, lambda: None)
    assert timers.timeout(0.0) == 86400.0
    assert timers.timeout(1e9 - 86399.0) == 86399.0


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
