"""Notices: what handlers say arrives whole, in order, whoever speaks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.ipc import exit_notices

if TYPE_CHECKING:
    from collections.abc import Iterator

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="module")
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose reader does not wait, as the master's."""
    heard, told = os.pipe()
    os.set_blocking(heard, False)
    yield heard, told
    os.close(heard)
    os.close(told)


@given(
    said=st.lists(
        st.tuples(
            st.integers(1, 999_999_999_999),
            st.sampled_from([exit_notices.IDLE, exit_notices.EXITING]),
            st.integers(0, 999_999),
        ),
        max_size=40,
    )
)
def test_what_is_said_is_heard_in_order(
    pipe: tuple[int, int], said: list[tuple[int, bytes, int]]
) -> None:
    """Any number, either kind, and any count arrive as they were sent."""
    heard, told = pipe
    for number, kind, lost in said:
        exit_notices.send_notice(
            told, exit_notices.with_lost_count(exit_notices.make_notice(kind, number), lost)
        )
    assert exit_notices.read_notices(heard) == said


def test_silence_is_no_error(pipe: tuple[int, int]) -> None:
    """Where nobody has said anything, nothing is heard."""
    assert exit_notices.read_notices(pipe[0]) == []


def test_a_notice_is_of_a_size_that_no_pipe_tears(pipe: tuple[int, int]) -> None:
    """Each notice is one write of 20 bytes, the smallest and the largest."""
    heard, told = pipe
    exit_notices.send_notice(told, exit_notices.make_notice(exit_notices.IDLE, 1))
    assert os.read(heard, 100) == b"000000000001i000000\n"
    whole = exit_notices.make_notice(exit_notices.EXITING, 999_999_999_999)
    exit_notices.send_notice(told, exit_notices.with_lost_count(whole, 999_999))
    assert os.read(heard, 100) == b"999999999999g999999\n"


def test_more_losses_than_fit_are_as_many_as_fit(pipe: tuple[int, int]) -> None:
    """A count that is too long for its place does not push the notice out of shape."""
    heard, told = pipe
    exit_notices.send_notice(
        told,
        exit_notices.with_lost_count(exit_notices.make_notice(exit_notices.EXITING, 77), 1_000_000),
    )
    assert exit_notices.read_notices(heard) == [(77, b"g", 999_999)]


def test_all_that_was_said_is_heard_at_once(pipe: tuple[int, int]) -> None:
    """However much there is, a reading ends between two notices, and is followed by another."""
    heard, told = pipe
    for number in range(1, 2101):
        exit_notices.send_notice(told, exit_notices.make_notice(exit_notices.IDLE, number))
    assert [number for number, _, _ in exit_notices.read_notices(heard)] == list(range(1, 2101))


def test_a_handler_without_a_master_goes_on() -> None:
    """When nobody listens any more, nobody needs to hear."""
    heard, told = os.pipe()
    os.close(heard)
    exit_notices.send_notice(told, exit_notices.make_notice(exit_notices.EXITING, 1))
    os.close(told)
