"""Lines with `suppressed`: each stands for this many events, also if it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.logger.test_process import (
    counters,
    event,
    lines,
    log_config,
    names,
    path,
    without_context,
)
from tetrad.logger.process import Logger

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tetrad.ipc.log_counters import LogCounters

__all__ = ["counters", "path"]


def test_a_lost_line_counts_as_the_events_that_it_stands_for(
    path: Path, counters: LogCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were written count as one line each."""
    logger = Logger(log_config(path))
    with monkeypatch.context() as patch:
        patch.setattr(logger._file, "write", lambda written: min(len(written), 2))  # noqa: SLF001
        data = event("one", suppressed=100) + event("two") + event("three", suppressed=7)
        logger.feed(data + without_context(event("three", suppressed=7)) + event("four"))
    assert counters.read() == (2, 15)
    logger.feed(event("last"))
    assert names(path) == ["log.lost", "last"]
    assert lines(path)[0]["count"] == 15


def test_a_line_below_the_level_stands_for_nothing(path: Path, counters: LogCounters) -> None:
    """It is neither written nor lost."""
    logger = Logger(log_config(path, "warning"))
    logger.feed(event("one", suppressed=100) + event("two", "warning"))
    assert counters.read() == (1, 0)
