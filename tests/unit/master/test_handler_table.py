"""The handler table: handlers are found, become idle, are checked, and are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tetrad.master.connections import Client, packed_address
from tetrad.master.handler_table import HandlerProcess, HandlerTable

if TYPE_CHECKING:
    from tetrad.system.addresses import Source


@pytest.fixture
def client() -> Client:
    """Return a client of a listener."""
    return Client.restore_state(
        {
            "address": None,
            "connection": "1f-1",
            "family": "inet",
            "listener": "127.0.0.1:65000",
            "listener_index": 0,
            "name": "203.0.113.7:38276",
            "proxy_fields": None,
            "service": "echo",
        }
    )


@pytest.fixture
def table() -> HandlerTable:
    """Return a table with the handlers 1, 2 and 3, none of them idle."""
    table = HandlerTable()
    for number in (1, 2, 3):
        table.add(HandlerProcess(number, 100 + number, None))
    return table


def numbers(table: HandlerTable) -> list[int]:
    """Return the numbers of all handlers."""
    return [handler.number for handler in table]


def get(table: HandlerTable, number: int) -> HandlerProcess:
    """Return a handler that must be in the table."""
    handler = table.find(number)
    assert handler is not None
    return handler


def test_a_new_handler_has_no_client() -> None:
    """It has its number and pid, and nothing else."""
    handler = HandlerProcess(1, 7, None)
    assert (handler.number, handler.pid, handler.channel, handler.client) == (1, 7, None, None)
    assert handler.since == 0.0


def test_a_handler_has_the_client_that_it_was_assigned(client: Client) -> None:
    """The client and the time of the assignment are stored."""
    handler = HandlerProcess(1, 7, None)
    handler.assign(client, 12.5)
    assert handler.client is not None
    assert (handler.client.save_state(), handler.since) == (client.save_state(), 12.5)


@pytest.mark.parametrize("address", [(32, 0x7F000001), (128, (1 << 128) - 1), None])
@pytest.mark.parametrize("more", [None, {"balancer": "192.0.2.1:5", "unique_id": "\x00\xff€"}])
def test_a_packed_client_is_unpacked_unchanged(
    client: Client, address: Source | None, more: dict[str, object] | None
) -> None:
    """All that the master keeps of it comes back, whatever its values are."""
    client.address, client.proxy_fields = address, more
    handler = HandlerProcess(1, 7, None)
    handler.assign(client, 12.5)
    assert handler.packed_client is not None
    assert Client.unpack(handler.packed_client).save_state() == client.save_state()
    assert packed_address(handler.packed_client) == address


def test_handlers_are_found_by_number(table: HandlerTable) -> None:
    """A handler that was added is found by its number; others are not."""
    assert (len(table), numbers(table)) == (3, [1, 2, 3])
    assert get(table, 2).pid == 102
    assert table.find(9) is None


def test_handlers_may_be_removed_during_iteration(table: HandlerTable) -> None:
    """The iteration goes over the handlers that were there at its start."""
    for handler in table:
        table.remove(handler)
    assert (len(table), numbers(table)) == (0, [])


def test_an_idle_handler_has_no_client(table: HandlerTable, client: Client) -> None:
    """Marking a handler idle drops its client and counts the handler as idle."""
    handler = get(table, 2)
    handler.assign(client, 1.0)
    table.mark_idle(handler)
    assert (handler.client, table.idle, len(table)) == (None, 1, 3)


def test_pop_idle_returns_the_handler_that_waited_least(table: HandlerTable) -> None:
    """The last in is the first out; None once no handler is idle."""
    for number in (1, 3, 2):
        table.mark_idle(get(table, number))
    assert [table.pop_idle() for _ in range(4)] == [*(get(table, n) for n in (2, 3, 1)), None]
    assert (table.idle, len(table)) == (0, 3)


def test_pop_longest_idle_returns_the_handler_that_waited_longest(table: HandlerTable) -> None:
    """The first in is the first out; None once no handler is idle."""
    for number in (3, 1, 2):
        table.mark_idle(get(table, number))
    assert [table.pop_longest_idle() for _ in range(4)] == [
        *(get(table, n) for n in (3, 1, 2)),
        None,
    ]
    assert (table.idle, len(table)) == (0, 3)


def test_a_removed_handler_is_neither_found_nor_idle(table: HandlerTable) -> None:
    """Removing a handler takes it out of the idle ones too."""
    handler = get(table, 2)
    table.mark_idle(handler)
    table.remove(handler)
    assert (table.find(2), table.idle) == (None, 0)
    assert (table.pop_idle(), numbers(table)) == (None, [1, 3])


def test_every_handler_is_checked_in_turn(table: HandlerTable) -> None:
    """A few at a time, each once in a round, and then the next round begins."""
    turns = [table.next_to_check(2) for _ in range(4)]
    assert [len(turn) for turn in turns] == [2, 1, 2, 1]
    for first, second in (turns[:2], turns[2:]):
        assert {handler.number for handler in first + second} == {1, 2, 3}


def test_a_handler_removed_within_a_round_is_not_checked(table: HandlerTable) -> None:
    """A handler that is added within a round is checked in the next one."""
    table.next_to_check(1)
    table.remove(get(table, 1))
    table.add(HandlerProcess(4, 104, None))
    assert [handler.number for handler in table.next_to_check(9)] == [2]
    assert {handler.number for handler in table.next_to_check(9)} == {2, 3, 4}


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["idle", "pop", "pop longest", "remove"]))
    )
)
def test_idle_handlers_are_a_list_with_two_ends(steps: list[tuple[int, str]]) -> None:
    """Whatever the order of calls, idle handlers form a list with the latest at its end."""
    table = HandlerTable()
    waiting: list[int] = []
    for number, step in steps:
        handler = table.find(number)
        if handler is None:
            table.add(HandlerProcess(number, 7, None))
        elif step == "idle" and number not in waiting:
            table.mark_idle(handler)
            waiting.append(number)
        elif step == "remove":
            table.remove(handler)
            waiting = [other for other in waiting if other != number]
        elif step in {"pop", "pop longest"} and waiting:
            popped = table.pop_idle() if step == "pop" else table.pop_longest_idle()
            assert popped is table.find(waiting.pop(-1 if step == "pop" else 0))
        assert table.idle == len(waiting)


def test_each_handler_is_drawn_once_in_a_round() -> None:
    """By any numbers; one that has been removed is not drawn, a new one in the next round."""
    table = HandlerTable()
    for number in range(5):
        table.add(HandlerProcess(number, 100 + number, None))
    first = table.draw(7)
    assert first is not None
    table.remove(HandlerProcess((first.number + 1) % 5, 0, None))
    drawn = [table.draw(random) for random in (0, 1 << 31, 5)]
    assert len({first, *drawn}) == 4
    new = HandlerProcess(9, 109, None)
    table.add(new)
    assert new in {table.draw(0) for _ in range(6)}


def test_no_handler_is_drawn_from_an_empty_table() -> None:
    """There is none."""
    assert HandlerTable().draw(1) is None
