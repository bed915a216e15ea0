"""Exit notices: what handlers write, the master reads complete and in order."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.ipc import exit_notices

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def pipe() -> Iterator[tuple[int, int]]:
    """The read end, non-blocking as the master's, and the write end of a pipe."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


@given(
    notices=st.lists(
        st.tuples(
            st.integers(1, 999_999_999_999),
            st.sampled_from([exit_notices.IDLE, exit_notices.EXITING]),
            st.integers(0, 999_999),
        ),
        max_size=40,
    )
)
def test_notices_are_read_in_order(
    pipe: tuple[int, int], notices: list[tuple[int, bytes, int]]
) -> None:
    """With any handler number, either kind, and any count of lost events."""
    read_end, write_end = pipe
    for number, kind, lost in notices:
        exit_notices.send_notice(
            write_end, exit_notices.with_lost_count(exit_notices.make_notice(kind, number), lost)
        )
    assert exit_notices.read_notices(read_end) == notices


def test_an_empty_pipe_has_no_notices(pipe: tuple[int, int]) -> None:
    """The read does not wait."""
    assert exit_notices.read_notices(pipe[0]) == []


def test_a_notice_is_one_write_of_20_bytes(pipe: tuple[int, int]) -> None:
    """The smallest and the largest; a pipe never splits a write of this size."""
    read_end, write_end = pipe
    exit_notices.send_notice(write_end, exit_notices.make_notice(exit_notices.IDLE, 1))
    assert os.read(read_end, 100) == b"000000000001i000000\n"
    largest = exit_notices.make_notice(exit_notices.EXITING, 999_999_999_999)
    exit_notices.send_notice(write_end, exit_notices.with_lost_count(largest, 999_999))
    assert os.read(read_end, 100) == b"999999999999g999999\n"


def test_the_count_of_lost_events_is_limited(pipe: tuple[int, int]) -> None:
    """A larger count does not change the size of the notice."""
    read_end, write_end = pipe
    exit_notices.send_notice(
        write_end,
        exit_notices.with_lost_count(exit_notices.make_notice(exit_notices.EXITING, 77), 1_000_000),
    )
    assert exit_notices.read_notices(read_end) == [(77, b"g", 999_999)]


def test_all_notices_in_the_pipe_are_read(pipe: tuple[int, int]) -> None:
    """Also when they do not fit one read."""
    read_end, write_end = pipe
    for number in range(1, 2101):
        exit_notices.send_notice(write_end, exit_notices.make_notice(exit_notices.IDLE, number))
    assert [number for number, _, _ in exit_notices.read_notices(read_end)] == list(range(1, 2101))


def test_a_notice_without_a_master_is_no_error() -> None:
    """The read end of the pipe is closed."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    exit_notices.send_notice(write_end, exit_notices.make_notice(exit_notices.EXITING, 1))
    os.close(write_end)
