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


def test_a_large_count_of_lost_events_takes_several_notices(pipe: tuple[int, int]) -> None:
    """No handler has the number 0; that of a rejection is the handler's."""
    read_end, write_end = pipe
    notice = exit_notices.make_notice(exit_notices.EXITING, 77)
    notice = exit_notices.with_rejection(exit_notices.with_lost_count(notice, 2_000_000), "tls")
    exit_notices.send_notice(write_end, notice)
    assert exit_notices.read_notices(read_end) == [
        (77, b"t", 0),
        (0, b"g", 999_999),
        (0, b"g", 999_999),
        (77, b"g", 2),
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"garbage",
        b"x" * 19 + b"\n",
        b"00000000000gg000000\n",
        b"000000000007z000000\n",
        b"000000000007g-00001\n",
        b"+00000000007g000000\n",
        b"000000000007g00000\n",
        b"000000000007\xb2000000\n",
        bytes(range(10)) * 400,
    ],
)
def test_garbage_is_reported_and_the_next_notice_is_found(
    pipe: tuple[int, int], garbage: bytes
) -> None:
    """With a line ending or without."""
    read_end, write_end = pipe
    os.write(write_end, garbage)
    exit_notices.send_notice(write_end, exit_notices.make_notice(exit_notices.EXITING, 8))
    assert exit_notices.read_notices(read_end) == [(0, exit_notices.INVALID, 0), (8, b"g", 0)]
    os.write(write_end, garbage)
    received = exit_notices.read_notices(read_end)
    assert set(received) == {(0, exit_notices.INVALID, 0)}


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(pipe: tuple[int, int], data: bytes) -> None:
    """Nothing that is no notice has a handler's number or a count."""
    read_end, write_end = pipe
    os.write(write_end, data + b"." if data else b".")
    assert exit_notices.read_notices(read_end)[-1] == (0, exit_notices.INVALID, 0)


def test_a_read_ends_while_notices_arrive(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that writes without a pause does not keep the master from its other work."""
    one = exit_notices.make_notice(exit_notices.IDLE, 5)
    monkeypatch.setattr(os, "read", lambda _fd, size: one * (size // len(one)))
    assert set(exit_notices.read_notices(pipe[0])) == {(5, b"i", 0)}


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


@given(
    descriptions=st.lists(
        st.binary(min_size=6, max_size=4000).map(lambda text: text.replace(b"\n", b"."))
    )
)
def test_certificates_are_read_between_other_notices(
    pipe: tuple[int, int], descriptions: list[bytes]
) -> None:
    """Whatever describes them; one that is longer than a write can be is not sent."""
    read_end, write_end = pipe
    found = []
    for number, description in enumerate(descriptions, 1):
        exiting = exit_notices.make_notice(exit_notices.EXITING, number)
        exit_notices.send_certificate(write_end, exiting, description)
        exit_notices.send_notice(write_end, exiting)
        found += exit_notices.read_notices(read_end)
    expected = [
        notice
        for number, one in enumerate(descriptions, 1)
        for notice in ((number, b"c" + one, 0), (number, exit_notices.EXITING, 0))
    ]
    assert found == expected
    exit_notices.send_certificate(write_end, exit_notices.make_notice(b"g", 1), bytes(5000))
    assert exit_notices.read_notices(read_end) == []


def test_a_record_that_the_last_read_cuts_is_read_to_its_end(pipe: tuple[int, int]) -> None:
    """Reads are of a length that records of certificates do not have."""
    read_end, write_end = pipe
    exiting = exit_notices.make_notice(exit_notices.EXITING, 7)
    count = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exit_notices, "_BATCH", 2)
        patch.setattr(exit_notices, "_READS", 1)
        for _ in range(3):
            exit_notices.send_certificate(write_end, exiting, b"x" * 100)
        while found := exit_notices.read_notices(read_end):
            count += len(found)
            assert set(found) == {(7, b"c" + b"x" * 100, 0)}
    assert count == 3


@pytest.mark.parametrize("garbage", [b"000000000009c", b"000000000009c" + b"x" * 50, b"c."])
def test_half_a_certificate_hides_no_other_notice(pipe: tuple[int, int], garbage: bytes) -> None:
    """That of another handler, which follows it in the same line, is found."""
    read_end, write_end = pipe
    os.write(write_end, garbage)
    exit_notices.send_notice(write_end, exit_notices.make_notice(exit_notices.EXITING, 3))
    assert (3, exit_notices.EXITING, 0) in exit_notices.read_notices(read_end)
