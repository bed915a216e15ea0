"""The processes of a daemon: how many, called what, and what they hold."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from processes import (
    MEASURED,
    children_of,
    descriptors_of,
    kinds_of,
    run,
    stat_of,
    state_of,
    status_of,
    title_of,
    until,
)

if TYPE_CHECKING:
    from conftest import MakeDaemon
    from daemons import Daemon

unmeasured = pytest.mark.skipif(MEASURED, reason="coverage has descriptors of its own")


def until_alone(daemon: Daemon) -> None:
    """Wait until only the master and its logger are left."""
    until(lambda: len(daemon.processes) == 2, "the end of the handlers")


def test_three_clients_are_five_processes(daemon: MakeDaemon) -> None:
    """A master, a logger, and a handler for each client; when they have left, two are left."""
    served = daemon()
    assert served.logger
    clients = [served.served() for _ in range(3)]
    assert len(served.processes) == 5
    assert all(client.quit() == b"quit" for client in clients)
    until_alone(served)
    assert children_of(served.pid) == [served.logger]


def test_processes_are_told_apart_by_their_titles(daemon: MakeDaemon) -> None:
    """`ps` shows the master with its file, the logger, and handlers with their clients."""
    served = daemon()
    assert served.logger
    clients = [served.served() for _ in range(2)]
    handlers = {f"tetrad: handler {client.name}" for client in clients}
    titles = [title_of(pid) for pid in served.processes]
    assert titles[0] == f"tetrad: master {served.file}"
    assert set(titles[1:]) == {"tetrad: logger"} | handlers


def test_processes_have_one_name(daemon: MakeDaemon) -> None:
    """All are `tetrad` for those who look for the command's name, as `pgrep` does."""
    served = daemon()
    assert served.logger
    served.served()
    assert {status_of(pid)["Name"] for pid in served.processes} == {"tetrad"}


def test_there_are_no_zombies(daemon: MakeDaemon) -> None:
    """Handlers that have ended are gone, not waiting to be asked how."""
    served = daemon()
    for _ in range(20):
        assert served.served().quit() == b"quit"
    until_alone(served)
    assert "Z" not in {state_of(pid) for pid in served.processes}


def test_a_unix_client_is_in_its_handlers_title(daemon: MakeDaemon) -> None:
    """A client without an address is called as in the log."""
    served = daemon(listen=[{"address": "unix:t.sock"}])
    served.connect_to_path("t.sock").ask()
    name = served.wait_for("client.connected")["client"]
    assert title_of(served.handlers[0]) == f"tetrad: handler {name}"


def test_the_daemon_has_left_its_starter(daemon: MakeDaemon) -> None:
    """It has a session of its own, does not lead it, and has no terminal."""
    served = daemon()
    _, _, group, session, terminal, *_ = stat_of(served.pid)
    assert int(terminal) == 0
    assert int(session) != os.getsid(0)
    assert int(session) != served.pid
    assert int(group) == int(session)


@unmeasured
def test_a_handler_holds_what_it_needs_and_nothing_else(daemon: MakeDaemon) -> None:
    """Journal, notices, lifeline and client: no listener, no pidfile, nobody else's client."""
    served = daemon(listen=[{"port": 0}, {"address": "unix:t.sock"}])
    for _ in range(3):
        served.served()
    assert len(served.handlers) == 3
    for handler in served.handlers:
        kinds = kinds_of(descriptors_of(handler))
        assert [kinds.pop(fd) for fd in range(6)] == ["/dev/null"] * 3 + ["pipe"] * 3
        assert list(kinds.values()) == ["socket"]


@unmeasured
def test_a_waiting_handler_holds_no_more(daemon: MakeDaemon) -> None:
    """A handler ahead of its client has the channel by which that will come."""
    served = daemon(handlers={"spare": 2, "clients_each": 5})
    served.served()
    until(lambda: len(served.handlers) == 3, "three handlers")
    counts = sorted(len(descriptors_of(pid)) for pid in served.handlers)
    assert counts == [7, 7, 8]


@unmeasured
def test_the_logger_holds_no_socket(daemon: MakeDaemon) -> None:
    """The pipe, the count of what it has written, and the file are all that it has open."""
    served = daemon()
    served.served()
    served.wait_for("client.command")
    held = kinds_of(descriptors_of(served.logger))
    assert sorted(held) == [0, 1, 2, 3, 4, 5]
    assert {held.pop(fd) for fd in (0, 1, 2)} == {"/dev/null"}
    assert sorted(held.values()) == ["/memfd:tally (deleted)", served.log_file, "pipe"]


def sockets_of(pid: int) -> int:
    """Return how many sockets a process has open."""
    return sum(name.startswith("socket:") for name in descriptors_of(pid).values())


def test_the_master_holds_no_clients(daemon: MakeDaemon) -> None:
    """A client's socket is its handler's alone: with its end, the connection ends."""
    served = daemon()
    assert sockets_of(served.pid) == 2
    for _ in range(5):
        served.served()
    # The master closes its copy when it has forked, which the answer does not wait for.
    until(lambda: sockets_of(served.pid) == 2, "the listener and the control socket alone")


def test_the_master_gathers_no_descriptors(daemon: MakeDaemon) -> None:
    """After many clients the master holds exactly what it held before."""
    served = daemon()
    assert served.logger
    before = kinds_of(descriptors_of(served.pid))
    for _ in range(30):
        served.served().quit()
    until_alone(served)
    until(lambda: kinds_of(descriptors_of(served.pid)) == before, "the same descriptors")


def test_the_port_is_free_when_the_master_was_killed(daemon: MakeDaemon) -> None:
    """Nobody but the master holds the listener: nobody connects to a daemon that is dead."""
    served = daemon()
    served.served()
    served.signal(9)
    assert served.is_gone()
    with pytest.raises(ConnectionRefusedError), socket.socket() as probe:
        probe.connect(("127.0.0.1", served.port))


def test_ps_shows_the_tree(daemon: MakeDaemon) -> None:
    """What an operator types shows who is who."""
    served = daemon()
    client = served.served()
    assert served.logger
    try:
        ran = run(["ps", "-o", "args=", "--ppid", str(served.pid)], served.environment)
    except FileNotFoundError:
        pytest.skip("ps is not installed: install procps")
    assert set(ran.out.split("\n")) == {"tetrad: logger", f"tetrad: handler {client.name}", ""}
