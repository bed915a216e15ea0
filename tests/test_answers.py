"""Sizes and terminators of answers: accepted forms, and error messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.config.answers import Size, Terminator

SIZE = "expected a size such as 4KiB or a number of bytes, from 1 to 1GiB"
TERMINATOR = 'expected a text of up to 16 characters: "\\n" in double quotes'


@given(st.integers(1, 1 << 30))
def test_a_size_survives_a_round_trip(count: int) -> None:
    """A size is written in the largest exact unit, and reads back to the same number."""
    size = Size.parse(count)
    assert Size.parse(str(size)) == size == count


@pytest.mark.parametrize(
    ("text", "count"), [("4KiB", 4096), ("1 MiB", 1 << 20), ("1GiB", 1 << 30), ("7B", 7), ("7", 7)]
)
def test_a_size_has_units_of_1024(text: str, count: int) -> None:
    """The units are KiB, MiB and GiB."""
    assert Size.parse(text) == count


@pytest.mark.parametrize("value", ["0", -1, "2GiB", "1.5KiB", "1kb", True, None, 1.5, ""])
def test_an_invalid_size_is_refused(value: object) -> None:
    """Zero, too large, and values that are not whole numbers of bytes."""
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the whole text is compared
        Size.parse(value)
    assert str(refusal.value) == SIZE


@pytest.mark.parametrize("text", ["", "\n", "\r\n", "\0", "--\n"])
def test_a_terminator_is_a_short_string(text: str) -> None:
    """It may be empty."""
    assert Terminator.parse(text) == text


@pytest.mark.parametrize("value", [r"\n", "x" * 17, 0, None])
def test_an_invalid_terminator_is_refused(value: object) -> None:
    """Above all a backslash and an n, which YAML does not read as a line feed."""
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the whole text is compared
        Terminator.parse(value)
    assert str(refusal.value) == TERMINATOR
