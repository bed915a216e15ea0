"""Refusals: all of them are counted, and some of them are shown."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.master.refusal_log import RefusalLog

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")


def shown(refusals: RefusalLog, reason: str, count: int, now: float) -> list[bool]:
    """Refuse `count` clients, and return which of them are to have a line."""
    return [refusals.add(reason, now) for _ in range(count)]


def test_ten_lines_a_second_are_shown_of_a_reason() -> None:
    """The first ten have lines of their own, and the rest of that second have none."""
    assert shown(RefusalLog(), "rate", 12, 100.0) == [True] * 10 + [False] * 2


def test_a_new_second_brings_new_lines() -> None:
    """A second after the first refusal, and not sooner, there are ten lines again."""
    refusals = RefusalLog()
    shown(refusals, "rate", 10, 100.0)
    assert not refusals.add("rate", 100.999)
    assert shown(refusals, "rate", 11, 101.0) == [True] * 10 + [False]


def test_each_reason_has_lines_of_its_own() -> None:
    """A flood of one reason hides no other."""
    refusals = RefusalLog()
    shown(refusals, "rate", 50, 100.0)
    assert refusals.add("access", 100.5)


def test_every_refusal_is_counted_by_its_reason() -> None:
    """Counts have those with a line and those without, and a summary leaves them be."""
    refusals = RefusalLog()
    shown(refusals, "rate", 25, 100.0)
    refusals.add("access", 100.0)
    list(refusals.take_suppressed())
    assert {reason: n for reason, n in refusals.counts.items() if n} == {"rate": 25, "access": 1}


def test_every_reason_has_a_count_from_the_start() -> None:
    """A reason that has not come up yet is counted, as none."""
    reasons = ["access", "clients", "clients_per_source", "rate", "stopping", "resources", "proxy"]
    assert RefusalLog().counts == dict.fromkeys(reasons, 0)


def test_those_without_a_line_are_summed_up_once() -> None:
    """The summary tells how many were not shown, by reason, and then begins anew."""
    refusals = RefusalLog()
    shown(refusals, "rate", 13, 100.0)
    shown(refusals, "access", 11, 100.0)
    assert list(refusals.take_suppressed()) == [("rate", 3), ("access", 1)]
    assert list(refusals.take_suppressed()) == []


def test_a_summary_is_due_when_its_second_is_over() -> None:
    """There is nothing to sum up until something was not shown, and nothing any more after."""
    refusals = RefusalLog()
    shown(refusals, "rate", 10, 100.0)
    assert refusals.suppressed_due is None
    refusals.add("rate", 100.5)
    assert refusals.suppressed_due == 101.0
    list(refusals.take_suppressed())
    assert refusals.suppressed_due is None


@given(st.lists(st.tuples(st.sampled_from(["rate", "access"]), st.sampled_from([0.0, 0.02, 0.7]))))
def test_none_is_lost_between_lines_and_summaries(refused: list[tuple[str, float]]) -> None:
    """What was counted is what had a line and what was summed up."""
    refusals, now, lines, summed = RefusalLog(), 0.0, 0, 0
    for reason, pause in refused:
        now += pause
        if refusals.suppressed_due is not None and now >= refusals.suppressed_due:
            summed += sum(count for _, count in refusals.take_suppressed())
        lines += refusals.add(reason, now)
    summed += sum(count for _, count in refusals.take_suppressed())
    assert lines + summed == sum(refusals.counts.values()) == len(refused)
