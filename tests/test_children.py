"""Who is in: handlers are found, wait, wake up, and are forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tetrad.children import Child, Children
from tetrad.handler import Admitted

settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

CLIENT = Admitted("203.0.113.7:38276", "1f-1", "inet", "command", "127.0.0.1:65000")


@pytest.fixture
def children() -> Children:
    """Handlers 1, 2 and 3, of whom nobody waits."""
    children = Children()
    for pid in (1, 2, 3):
        children.register(Child(pid, None))
    return children


def pids(children: Children) -> list[int]:
    """Return who there is."""
    return [child.pid for child in children]


def get(children: Children, pid: int) -> Child:
    """Return a handler that is there."""
    child = children.by_pid(pid)
    assert child is not None
    return child


def test_a_new_handler_has_nobody() -> None:
    """A handler begins without a client and untracked."""
    child = Child(7, None)
    assert (child.pid, child.channel, child.client, child.pidfd) == (7, None, None, None)
    assert (child.address, child.since) == (None, 0.0)


def test_a_handler_has_its_client_since_it_took_it() -> None:
    """The client, its address and the moment are remembered."""
    child = Child(7, None)
    child.take(CLIENT, (32, 1), 12.5)
    assert (child.client, child.address, child.since) == (CLIENT, (32, 1), 12.5)


def test_handlers_are_found_by_pid(children: Children) -> None:
    """Who was registered is there and found, and nobody else."""
    assert (len(children), pids(children)) == (3, [1, 2, 3])
    assert get(children, 2).pid == 2
    assert children.by_pid(9) is None


def test_a_handler_is_found_by_the_descriptor_of_its_end(children: Children) -> None:
    """A handler that is tracked is found by its descriptor, one that cannot be is not."""
    child = get(children, 2)
    children.track(child)
    assert children.by_pidfd(30) is None
    child.pidfd = 30
    children.track(child)
    assert children.by_pidfd(30) is child


def test_handlers_may_go_while_they_are_gone_through(children: Children) -> None:
    """Going through the handlers is going through those that were there."""
    for child in children:
        children.forget(child)
    assert (len(children), pids(children)) == (0, [])


def test_a_handler_that_waits_has_no_client(children: Children) -> None:
    """Who takes a rest is done with its client, and is counted among those that wait."""
    child = get(children, 2)
    child.take(CLIENT, None, 1.0)
    children.rest(child)
    assert (child.client, children.idle, len(children)) == (None, 1, 3)


def test_the_handler_that_waited_least_is_woken(children: Children) -> None:
    """The last to wait is the first to work, and when all work nobody can be woken."""
    for pid in (1, 3, 2):
        children.rest(get(children, pid))
    assert [children.wake() for _ in range(4)] == [*(get(children, n) for n in (2, 3, 1)), None]
    assert (children.idle, len(children)) == (0, 3)


def test_the_handler_that_waited_longest_is_let_go_first(children: Children) -> None:
    """The first to wait is the first that is not needed any more."""
    for pid in (3, 1, 2):
        children.rest(get(children, pid))
    assert [children.idlest() for _ in range(4)] == [*(get(children, n) for n in (3, 1, 2)), None]
    assert (children.idle, len(children)) == (0, 3)


def test_a_forgotten_handler_is_nowhere(children: Children) -> None:
    """Who is gone is not found, does not wait, and is not woken."""
    child = get(children, 2)
    child.pidfd = 30
    children.track(child)
    children.rest(child)
    children.forget(child)
    assert (children.by_pid(2), children.by_pidfd(30), children.idle) == (None, None, 0)
    assert (children.wake(), pids(children)) == (None, [1, 3])


def test_a_handler_without_a_descriptor_can_be_forgotten(children: Children) -> None:
    """Who could never be tracked is forgotten like the others."""
    children.forget(get(children, 1))
    assert pids(children) == [2, 3]


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["rest", "wake", "idlest", "go"]))))
def test_who_waits_is_a_list_with_two_ends(steps: list[tuple[int, str]]) -> None:
    """However handlers rest, wake and go, those that wait are a list, the latest last."""
    children = Children()
    waiting: list[int] = []
    for pid, step in steps:
        child = children.by_pid(pid)
        if child is None:
            children.register(Child(pid, None))
        elif step == "rest" and pid not in waiting:
            children.rest(child)
            waiting.append(pid)
        elif step == "go":
            children.forget(child)
            waiting = [other for other in waiting if other != pid]
        elif step in {"wake", "idlest"} and waiting:
            woken = children.wake() if step == "wake" else children.idlest()
            assert woken is children.by_pid(waiting.pop(-1 if step == "wake" else 0))
        assert children.idle == len(waiting)
