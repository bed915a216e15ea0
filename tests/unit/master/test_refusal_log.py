"""The log of refusals: all are counted, and a limited number is logged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tetrad.master.refusal_log import RefusalLog


def logged(refusals: RefusalLog, reason: str, count: int, now: float) -> list[bool]:
    """Refuse `count` clients, and return which of them get a line."""
    return [refusals.add(reason, now) for _ in range(count)]


def test_each_reason_has_ten_lines_a_second() -> None:
    """The first ten refusals of a second get a line, the others do not."""
    assert logged(RefusalLog(), "rate", 12, 100.0) == [True] * 10 + [False] * 2


def test_a_new_second_brings_new_lines() -> None:
    """A second after the first refusal, ten lines are available again."""
    refusals = RefusalLog()
    logged(refusals, "rate", 10, 100.0)
    assert not refusals.add("rate", 100.999)
    assert logged(refusals, "rate", 11, 101.0) == [True] * 10 + [False]


def test_the_limit_is_for_each_reason() -> None:
    """A flood of one reason does not suppress another."""
    refusals = RefusalLog()
    logged(refusals, "rate", 50, 100.0)
    assert refusals.add("access", 100.5)


def test_every_refusal_is_counted_by_its_reason() -> None:
    """Refusals with and without a line are counted; a summary does not change the counts."""
    refusals = RefusalLog()
    logged(refusals, "rate", 25, 100.0)
    refusals.add("access", 100.0)
    list(refusals.take_suppressed())
    assert {reason: n for reason, n in refusals.counts.items() if n} == {"rate": 25, "access": 1}


def test_every_reason_has_a_count_from_the_start() -> None:
    """Its count begins at zero."""
    reasons = ["access", "clients", "clients_per_source", "crashes", "rate", "stopping"]
    reasons += ["resources", "proxy"]
    assert RefusalLog().counts == dict.fromkeys(reasons, 0)


def test_suppressed_refusals_are_summarised_once() -> None:
    """The summary has the number of suppressed refusals by reason, and is then empty."""
    refusals = RefusalLog()
    logged(refusals, "rate", 13, 100.0)
    logged(refusals, "access", 11, 100.0)
    assert list(refusals.take_suppressed()) == [("rate", 3), ("access", 1)]
    assert list(refusals.take_suppressed()) == []


def test_a_summary_is_due_when_its_second_is_over() -> None:
    """Only suppressed refusals need a summary."""
    refusals = RefusalLog()
    logged(refusals, "rate", 10, 100.0)
    assert refusals.suppressed_due is None
    refusals.add("rate", 100.5)
    assert refusals.suppressed_due == 101.0
    list(refusals.take_suppressed())
    assert refusals.suppressed_due is None


@given(st.lists(st.tuples(st.sampled_from(["rate", "access"]), st.sampled_from([0.0, 0.02, 0.7]))))
def test_every_refusal_is_in_a_line_or_a_summary(refused: list[tuple[str, float]]) -> None:
    """The counts are the sum of lines and summaries."""
    refusals, now, lines, suppressed = RefusalLog(), 0.0, 0, 0
    for reason, pause in refused:
        now += pause
        if refusals.suppressed_due is not None and now >= refusals.suppressed_due:
            suppressed += sum(count for _, count in refusals.take_suppressed())
        lines += refusals.add(reason, now)
    suppressed += sum(count for _, count in refusals.take_suppressed())
    assert lines + suppressed == sum(refusals.counts.values()) == len(refused)
