"""Who is in: handlers are found, wait, wake up, are looked after, and are forgotten."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.ipc.runtime_config import ListenerConfig
from tetrad.ipc.saved_state import FORMAT
from tetrad.master.connections import Client, Listener, packed_address
from tetrad.master.handler_table import HandlerProcess, HandlerTable

if TYPE_CHECKING:
    from tetrad.system.addresses import Source

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture
def client() -> Client:
    """A client of a listener."""
    plan = ListenerConfig(
        index=0,
        name="127.0.0.1:0",
        family="inet",
        address="127.0.0.1",
        port=0,
        service="echo",
        backlog=1,
        reply_terminator="",
        proxy=None,
        tls=None,
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return Client("203.0.113.7:38276", None, "1f-1", Listener(plan, listening))


@pytest.fixture
def children() -> HandlerTable:
    """Handlers 1, 2 and 3, of whom nobody waits."""
    children = HandlerTable()
    for number in (1, 2, 3):
        children.add(HandlerProcess(number, 100 + number, None))
    return children


def numbers(children: HandlerTable) -> list[int]:
    """Return who there is."""
    return [child.number for child in children]


def get(children: HandlerTable, number: int) -> HandlerProcess:
    """Return a handler that is there."""
    child = children.find(number)
    assert child is not None
    return child


def test_a_new_handler_has_nobody() -> None:
    """A handler begins without a client."""
    child = HandlerProcess(1, 7, None)
    assert (child.number, child.pid, child.channel, child.client) == (1, 7, None, None)
    assert child.since == 0.0


def test_a_handler_has_its_client_since_it_took_it(client: Client) -> None:
    """The client and the moment are remembered."""
    child = HandlerProcess(1, 7, None)
    child.assign(client, 12.5)
    assert child.client is not None
    assert (child.client.save_state(), child.since) == (client.save_state(), 12.5)


@pytest.mark.parametrize("address", [(32, 0x7F000001), (128, (1 << 128) - 1), None])
@pytest.mark.parametrize("more", [None, {"balancer": "192.0.2.1:5", "unique_id": "\x00\xff€"}])
def test_a_client_is_kept_as_it_came(
    client: Client, address: Source | None, more: dict[str, object] | None
) -> None:
    """Whatever it is, it comes back; but for what only its handler has to know."""
    client.address, client.proxy_fields = address, more
    child = HandlerProcess(1, 7, None)
    child.assign(client, 12.5)
    assert child.packed_client is not None
    assert Client.unpack(child.packed_client).save_state() == client.save_state()
    assert packed_address(child.packed_client) == address


def test_saved_clients_have_this_format(client: Client) -> None:
    """Who changes that has to change the number, too: else a version takes what it cannot read."""
    saved = ["address", "connection", "family", "listener", "listener_index", "name"]
    saved += ["proxy_fields", "service"]
    assert (FORMAT, sorted(client.save_state())) == (3, saved)


def test_handlers_are_found_by_number(children: HandlerTable) -> None:
    """Who was registered is there and found, and nobody else."""
    assert (len(children), numbers(children)) == (3, [1, 2, 3])
    assert get(children, 2).pid == 102
    assert children.find(9) is None


def test_handlers_may_go_while_they_are_gone_through(children: HandlerTable) -> None:
    """Going through the handlers is going through those that were there."""
    for child in children:
        children.remove(child)
    assert (len(children), numbers(children)) == (0, [])


def test_a_handler_that_waits_has_no_client(children: HandlerTable, client: Client) -> None:
    """Who takes a rest is done with its client, and is counted among those that wait."""
    child = get(children, 2)
    child.assign(client, 1.0)
    children.mark_idle(child)
    assert (child.client, children.idle, len(children)) == (None, 1, 3)


def test_the_handler_that_waited_least_is_woken(children: HandlerTable) -> None:
    """The last to wait is the first to work, and when all work nobody can be woken."""
    for number in (1, 3, 2):
        children.mark_idle(get(children, number))
    assert [children.pop_idle() for _ in range(4)] == [*(get(children, n) for n in (2, 3, 1)), None]
    assert (children.idle, len(children)) == (0, 3)


def test_the_handler_that_waited_longest_is_let_go_first(children: HandlerTable) -> None:
    """The first to wait is the first that is not needed any more."""
    for number in (3, 1, 2):
        children.mark_idle(get(children, number))
    assert [children.pop_longest_idle() for _ in range(4)] == [
        *(get(children, n) for n in (3, 1, 2)),
        None,
    ]
    assert (children.idle, len(children)) == (0, 3)


def test_a_forgotten_handler_is_nowhere(children: HandlerTable) -> None:
    """Who is gone is not found, does not wait, and is not woken."""
    child = get(children, 2)
    children.mark_idle(child)
    children.remove(child)
    assert (children.find(2), children.idle) == (None, 0)
    assert (children.pop_idle(), numbers(children)) == (None, [1, 3])


def test_all_have_their_turn_to_be_looked_after(children: HandlerTable) -> None:
    """A few at a time, each once, and then all over again."""
    turns = [children.next_to_check(2) for _ in range(4)]
    assert [len(turn) for turn in turns] == [2, 1, 2, 1]
    for first, second in (turns[:2], turns[2:]):
        assert {child.number for child in first + second} == {1, 2, 3}


def test_who_has_gone_meanwhile_is_not_looked_after(children: HandlerTable) -> None:
    """One that is forgotten between two turns has no turn; a new one has the next round."""
    children.next_to_check(1)
    children.remove(get(children, 1))
    children.add(HandlerProcess(4, 104, None))
    assert [child.number for child in children.next_to_check(9)] == [2]
    assert {child.number for child in children.next_to_check(9)} == {2, 3, 4}


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["rest", "wake", "idlest", "go"]))))
def test_who_waits_is_a_list_with_two_ends(steps: list[tuple[int, str]]) -> None:
    """However handlers rest, wake and go, those that wait are a list, the latest last."""
    children = HandlerTable()
    waiting: list[int] = []
    for number, step in steps:
        child = children.find(number)
        if child is None:
            children.add(HandlerProcess(number, 7, None))
        elif step == "rest" and number not in waiting:
            children.mark_idle(child)
            waiting.append(number)
        elif step == "go":
            children.remove(child)
            waiting = [other for other in waiting if other != number]
        elif step in {"wake", "idlest"} and waiting:
            woken = children.pop_idle() if step == "wake" else children.pop_longest_idle()
            assert woken is children.find(waiting.pop(-1 if step == "wake" else 0))
        assert children.idle == len(waiting)
