"""The processes of a daemon: their number, their titles, and their descriptors."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import (
    UNDER_COVERAGE,
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
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

WITH_UNIX = [{"port": 0}, {"address": "unix:t.sock"}]

unmeasured = pytest.mark.skipif(UNDER_COVERAGE, reason="coverage opens descriptors: run without it")


def serve_clients(daemon: Daemon, count: int) -> None:
    """Serve clients at a time, each until its handler waits, and let them quit."""
    clients = [daemon.connect() for _ in range(count)]
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)
    until(lambda: len(daemon.handlers) == count, "handlers that wait")
    assert all(client.quit() == b"quit" for client in clients)


def wait_for_handlers_to_exit(daemon: Daemon) -> None:
    """Wait until only the master and its logger run."""
    until(lambda: len(daemon.processes) == 2, "the end of the handlers")


@pytest.mark.quick
def test_three_clients_are_five_processes(shared_daemon: MakeDaemon) -> None:
    """A master, a logger, and a handler for each client; two when the clients have quit."""
    served = shared_daemon()
    assert served.logger
    clients = [served.served() for _ in range(3)]
    assert len(served.processes) == 5
    assert all(client.quit() == b"quit" for client in clients)
    wait_for_handlers_to_exit(served)
    assert children_of(served.pid) == [served.logger]


@pytest.mark.quick
def test_titles_name_the_processes(shared_daemon: MakeDaemon) -> None:
    """`ps` shows the master with its file, the logger, and each handler with its client."""
    served = shared_daemon()
    assert served.logger
    clients = [served.served() for _ in range(2)]
    handlers = {f"tetrad: handler {client.name}" for client in clients}
    titles = [title_of(pid) for pid in served.processes]
    assert titles[0] == f"tetrad: master {served.file}"
    assert set(titles[1:]) == {"tetrad: logger"} | handlers


def test_the_command_name_of_all_processes_is_tetrad(shared_daemon: MakeDaemon) -> None:
    """`pgrep tetrad` finds them all."""
    served = shared_daemon()
    assert served.logger
    served.served()
    assert {status_of(pid)["Name"] for pid in served.processes} == {"tetrad"}


@pytest.mark.quick
def test_there_are_no_zombies(shared_daemon: MakeDaemon) -> None:
    """The kernel reaps handlers when they exit."""
    served = shared_daemon()
    for count in (1, 19):
        serve_clients(served, count)
    wait_for_handlers_to_exit(served)
    assert "Z" not in {state_of(pid) for pid in served.processes}


def test_a_unix_client_is_in_the_title_of_its_handler(shared_daemon: MakeDaemon) -> None:
    """Its name is the one in the log."""
    served = shared_daemon(listen=WITH_UNIX)
    served.connect_to_path("t.sock").ask()
    name = served.wait_for("client.connected")["client"]
    assert title_of(served.handlers[0]) == f"tetrad: handler {name}"


@pytest.mark.quick
def test_the_daemon_is_detached(shared_daemon: MakeDaemon) -> None:
    """It is in a new session, is not the session leader, and has no terminal."""
    served = shared_daemon()
    _, _, group, session, terminal, *_ = stat_of(served.pid)
    assert int(terminal) == 0
    assert int(session) != os.getsid(0)
    assert int(session) != served.pid
    assert int(group) == int(session)


@unmeasured
def test_a_handler_has_three_pipes_and_its_client(shared_daemon: MakeDaemon) -> None:
    """It has no listener, no pidfile and no other client."""
    served = shared_daemon(listen=WITH_UNIX)
    for _ in range(3):
        served.served()
    assert len(served.handlers) == 3
    for handler in served.handlers:
        kinds = kinds_of(descriptors_of(handler))
        assert [kinds.pop(fd) for fd in range(6)] == ["/dev/null"] * 3 + ["pipe"] * 3
        assert list(kinds.values()) == ["socket"]


@unmeasured
def test_a_spare_handler_has_three_pipes_and_a_channel(daemon: MakeDaemon) -> None:
    """It receives its client through the channel."""
    served = daemon(handlers={"spare": 2, "clients_each": 5})
    served.served()
    until(lambda: len(served.handlers) == 3, "three handlers")
    counts = sorted(len(descriptors_of(pid)) for pid in served.handlers)
    assert counts == [7, 7, 8]


@unmeasured
def test_the_logger_has_no_socket(shared_daemon: MakeDaemon) -> None:
    """It has the event pipe, its counters and the log file."""
    served = shared_daemon()
    served.served()
    served.wait_for("client.command")
    open_files = kinds_of(descriptors_of(served.logger))
    assert sorted(open_files) == [0, 1, 2, 3, 4, 5]
    assert {open_files.pop(fd) for fd in (0, 1, 2)} == {"/dev/null"}
    assert sorted(open_files.values()) == ["/memfd:log_counters (deleted)", served.log_file, "pipe"]


def sockets_of(pid: int) -> int:
    """Return how many sockets a process has open."""
    return sum(name.startswith("socket:") for name in descriptors_of(pid).values())


def test_the_master_keeps_no_client_socket(shared_daemon: MakeDaemon) -> None:
    """Only the handler has it, so the connection ends with the handler."""
    served = shared_daemon()
    assert sockets_of(served.pid) == 2
    for _ in range(5):
        served.served()
    # The master closes its copy after the fork; the answer may be faster.
    until(lambda: sockets_of(served.pid) == 2, "only the listener and the control socket")


def test_the_master_leaks_no_descriptors(shared_daemon: MakeDaemon) -> None:
    """After many clients, the master has the same descriptors as before."""
    served = shared_daemon()
    assert served.logger
    before = kinds_of(descriptors_of(served.pid))
    for count in (1, 29):
        serve_clients(served, count)
    wait_for_handlers_to_exit(served)
    until(lambda: kinds_of(descriptors_of(served.pid)) == before, "the same descriptors")


def test_a_killed_master_frees_the_port(daemon: MakeDaemon) -> None:
    """Only the master has the listener, so clients are refused."""
    served = daemon()
    served.served()
    served.signal(9)
    assert served.is_gone()
    with pytest.raises(ConnectionRefusedError), socket.socket() as client:
        client.connect(("127.0.0.1", served.port))


def test_ps_shows_the_children(shared_daemon: MakeDaemon) -> None:
    """`ps --ppid` shows the logger and the handlers with their clients."""
    served = shared_daemon()
    client = served.served()
    assert served.logger
    try:
        ran = run(["ps", "-o", "args=", "--ppid", str(served.pid)], served.environment)
    except FileNotFoundError:
        pytest.skip("ps is not installed: apt-get install procps")
    assert set(ran.out.split("\n")) == {"tetrad: logger", f"tetrad: handler {client.name}", ""}
