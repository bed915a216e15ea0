"""Logs of machines whose clock was wrong at boot and set later."""

from __future__ import annotations

import pytest

from tests.support.written_logs import START, line, shown, write


@pytest.mark.parametrize("wrong", [-START, -3600], ids=["1970", "an hour slow"])
def test_lines_of_a_wrong_clock_hide_no_lines_before_them(path: str, wrong: int) -> None:
    """They are no sign that all lines before them are too old."""
    before, after = line(10), line(60)
    write(path, before, *(line(wrong + second) for second in range(20)), after)
    assert shown(path, since=START) == [before, after]
