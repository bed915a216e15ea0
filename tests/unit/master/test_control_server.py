"""Who may ask over the control socket: users and groups as the kernel shows them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest

from tetrad.master import control_server
from tetrad.master.control_server import ControlServer

if TYPE_CHECKING:
    import _socket

    from tetrad.system.event_loop import EventLoop

OVERFLOW = 65534
"""The id that stands for every user that a user namespace does not map; also that of nobody."""

ALL = [(0, 4294967295)]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> object:
    """Return a function that makes a server for a user, a group and the ids of a namespace."""

    def server(uid: int, group: int | None, ids: list[tuple[int, int]]) -> ControlServer:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(control_server, "_id_map", lambda _kind: ids)
        loop, listener = cast("EventLoop", None), cast("_socket.socket", None)
        return ControlServer(loop, listener, lambda _work, _fd: None, {}, group)

    return server


@pytest.mark.parametrize(
    ("uid", "group", "ids", "privileged", "readers"),
    [
        (1000, None, ALL, {0, 1000}, set()),
        (OVERFLOW, OVERFLOW, ALL, {0, OVERFLOW}, {OVERFLOW}),
        (1000, 4, [(0, 1), (1000, 1)], {0, 1000}, {4}),
        (OVERFLOW, OVERFLOW, [(0, 1), (OVERFLOW, 1)], {0}, set()),
        (OVERFLOW, OVERFLOW, [], {0}, set()),
    ],
    ids=["a user", "nobody", "a namespace", "nobody in a namespace", "without /proc"],
)
def test_the_id_of_unmapped_users_proves_nothing(  # noqa: PLR0913, PLR0917 - a table
    make: object,
    uid: int,
    group: int | None,
    ids: list[tuple[int, int]],
    privileged: set[int],
    readers: set[int],
) -> None:
    """In a user namespace that does not map all users, all others have the id of nobody."""
    assert callable(make)
    server = make(uid, group, ids)
    assert (server._privileged, server._readers) == (privileged, readers)  # noqa: SLF001
