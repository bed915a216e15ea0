"""Spare handlers, and reusable handlers that serve several clients."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import stat_of, stopped, title_of, until

if TYPE_CHECKING:
    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

WAITING = "tetrad: handler (waiting)"

LISTEN = [{"port": 0}, {"port": 0, "service": "echo"}, {"address": "unix:t.sock"}]


@pytest.fixture
def spare(shared_daemon: MakeDaemon) -> Daemon:
    """Return a daemon with two spare handlers, which wait."""
    daemon = shared_daemon(listen=LISTEN, handlers={"spare": 2})
    until(lambda: len(daemon.handlers) == 2, "the end of other handlers")
    until_waiting(daemon, 2)
    return daemon


@pytest.fixture
def reusing(shared_daemon: MakeDaemon) -> Daemon:
    """Return a daemon whose handlers serve any number of clients, and have none yet."""
    daemon = shared_daemon(handlers={"clients_each": 1_000_000})
    for handler in daemon.handlers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(handler, signal.SIGTERM)
    until(lambda: not daemon.handlers, "the end of the handlers")
    return daemon


def until_waiting(daemon: Daemon, count: int) -> list[int]:
    """Wait until so many handlers wait for a client; return their pids."""
    until(lambda: daemon.status()["handlers"]["idle"] == count, f"{count} waiting handlers")
    until(lambda: len(waiting(daemon)) == count, WAITING)
    return waiting(daemon)


def waiting(daemon: Daemon) -> list[int]:
    """Return the handlers whose process title is that of a waiting one."""
    return [pid for pid in daemon.handlers if title_of(pid) == WAITING]


def pid_of(daemon: Daemon, client: Client) -> int:
    """Return the handler that serves a client, by the log."""
    pid: int = daemon.wait_for("client.connected", client=client.name)["pid"]
    return pid


def serve_one_after_another(daemon: Daemon, count: int) -> list[int]:
    """Serve clients one after another; return the pids of their handlers."""
    pids = []
    for _ in range(count):
        client = daemon.connect()
        assert ANSWER.fullmatch(client.ask())
        pids.append(pid_of(daemon, client))
        client.quit()
        until(lambda: daemon.status()["clients"]["now"] == 0, "the end of a session")
        daemon.wait_for("client.disconnected", client=client.name)
    return pids


@pytest.mark.quick
def test_spare_handlers_wait_for_their_clients(spare: Daemon) -> None:
    """`spare` handlers exist before the first client, and serve the first clients."""
    spares = waiting(spare)
    assert pid_of(spare, spare.served()) in spares


def test_spare_handlers_are_replaced(spare: Daemon) -> None:
    """When one gets a client, another one is forked."""
    clients = [spare.served() for _ in range(3)]
    until_waiting(spare, 2)
    assert len(spare.handlers) == 5
    assert all(client.quit() == b"quit" for client in clients)


def test_a_spare_handler_serves_one_client_by_default(spare: Daemon) -> None:
    """Each client has a process of its own."""
    pids = serve_one_after_another(spare, 3)
    assert len(set(pids)) == 3


def test_more_clients_than_spares_are_served(spare: Daemon) -> None:
    """A burst of clients, with two spare handlers."""
    clients = [spare.connect() for _ in range(20)]
    assert all(ANSWER.fullmatch(client.ask()) for client in clients)
    assert all(client.quit() == b"quit" for client in clients)


def test_spare_handlers_serve_every_listener(spare: Daemon) -> None:
    """Both services, and clients of a Unix socket."""
    assert ANSWER.fullmatch(spare.connect(0).ask())
    until_waiting(spare, 2)
    assert spare.connect(1).echo(b"time") == b"time"
    until_waiting(spare, 2)
    assert ANSWER.fullmatch(spare.connect_to_path("t.sock").ask())


def test_a_waiting_handler_that_is_killed_is_replaced(daemon: MakeDaemon) -> None:
    """Its loss is logged."""
    served = daemon(handlers={"spare": 1})
    served.allow_lost_handlers = True
    lost = until_waiting(served, 1)[0]
    os.kill(lost, signal.SIGKILL)
    assert served.wait_for("handler.lost")["handler"] == lost
    assert until_waiting(served, 1) != [lost]


@pytest.mark.quick
def test_a_handler_serves_as_many_clients_as_it_may(daemon: MakeDaemon) -> None:
    """With `clients_each` 3, the fourth client has another handler."""
    served = daemon(handlers={"clients_each": 3})
    first, second, third, fourth = serve_one_after_another(served, 4)
    assert first == second == third != fourth


def test_a_handler_exits_after_its_last_client(daemon: MakeDaemon) -> None:
    """After `clients_each` clients."""
    served = daemon(handlers={"clients_each": 2})
    serve_one_after_another(served, 2)
    until(lambda: not served.handlers, "the end of the handler")


def test_clients_at_once_have_handlers_of_their_own(reusing: Daemon) -> None:
    """A handler never has two clients at a time."""
    clients = [reusing.served() for _ in range(3)]
    assert len({pid_of(reusing, client) for client in clients}) == 3


def test_the_title_of_a_handler_names_its_present_client(reusing: Daemon) -> None:
    """And no client while it waits for one."""
    client = reusing.served()
    assert title_of(reusing.handlers[0]) == f"tetrad: handler {client.name}"
    client.quit()
    until_waiting(reusing, 1)
    client = reusing.served()
    assert title_of(reusing.handlers[0]) == f"tetrad: handler {client.name}"


def test_an_unfinished_command_is_not_the_next_clients(reusing: Daemon) -> None:
    """The next client cannot complete it."""
    client = reusing.connect()
    client.send_and_wait(b"ti")
    client.close()
    until_waiting(reusing, 1)
    client = reusing.connect()
    client.send_and_wait(b"me")
    assert reusing.wait_for("client.invalid", client=client.name)["command"] == "me"
    assert ANSWER.fullmatch(client.ask())


def test_counts_begin_at_zero_for_each_client(reusing: Daemon) -> None:
    """Bytes and commands of a reusable handler's sessions."""
    serve_one_after_another(reusing, 2)
    lines = reusing.events("client.disconnected")
    assert [(line["bytes_in"], line["bytes_out"], line["commands"]) for line in lines] == [
        (8, 23, 2)
    ] * 2


def test_each_client_has_its_own_log_context(reusing: Daemon) -> None:
    """Two clients of one handler have two addresses and two connection ids."""
    serve_one_after_another(reusing, 2)
    lines = reusing.events("client.connected") + reusing.events("client.disconnected")
    names = {(line["client"], line["connection"]) for line in lines}
    assert len(names) == 2
    assert len({name for name, _ in names}) == len({number for _, number in names}) == 2


def test_deadlines_begin_anew_for_each_client(daemon: MakeDaemon) -> None:
    """A second client has its full `first_command_timeout`."""
    served = daemon(handlers={"clients_each": 5}, session={"first_command_timeout": "500ms"})
    serve_one_after_another(served, 1)
    silent = served.connect()
    assert silent.read_all() == b""
    line = served.wait_for("client.disconnected", client=silent.name)
    assert line["reason"] == "first_command_timeout"
    assert line["duration"] >= 0.5


def test_unread_input_is_not_the_next_clients(reusing: Daemon) -> None:
    """It is thrown away with the connection."""
    first = reusing.connect()
    first.send(b"quittimetime")
    assert first.read_all() == b"quit"
    first.close()
    until_waiting(reusing, 1)
    assert reusing.connect().quit() == b"quit"


def test_waiting_handlers_end_with_the_daemon(daemon: MakeDaemon) -> None:
    """A stop does not wait for them."""
    served = daemon(handlers={"spare": 3, "clients_each": 10})
    until_waiting(served, 3)
    served.stop()
    assert served.events()[-1]["event"] == "server.stopped"


def test_a_handler_with_lowered_priority_serves_no_other_client(reusing: Daemon) -> None:
    """Invalid commands of one client do not slow down the next."""
    client = reusing.served()
    client.send(b"help")
    reusing.wait_for("client.invalid")
    handler = reusing.handlers[0]
    until(lambda: _nice(handler) == os.nice(0) + 5, "the lowered priority")
    client.close()
    reusing.wait_for("client.disconnected")
    assert _nice(pid_of(reusing, reusing.served())) == os.nice(0)


def _nice(pid: int) -> int:
    """Return the nice value of a process, as of proc(5)."""
    return int(stat_of(pid)[16])


def test_a_waiting_handler_that_gets_sigterm_loses_no_client(daemon: MakeDaemon) -> None:
    """One that was passed to it before is answered; the next one gets another handler."""
    served = daemon(handlers={"spare": 1, "clients_each": 1000})
    until(lambda: served.status()["handlers"]["idle"] == 1, "a spare")
    (spare,) = served.handlers
    with stopped(spare):
        passed = served.connect()
        passed.send(b"time")
        until(lambda: served.status()["clients"]["now"] == 1, "the client to be passed")
        os.kill(spare, signal.SIGTERM)
    assert ANSWER.fullmatch(passed.socket.recv(99))
    assert passed.read_all() == b""
    assert served.wait_for("client.disconnected")["reason"] == "terminated"
    other = served.served()
    assert other.quit() == b"quit"


def test_a_reusable_handler_that_gets_sigterm_exits_after_its_client(reusing: Daemon) -> None:
    """Also when the signal arrives on the fast path."""
    assert reusing.connect().quit() == b"quit"
    (handler,) = until(lambda: reusing.handlers, "a handler")
    with stopped(handler):
        client = reusing.connect()
        client.send(b"quit")
        until(lambda: reusing.status()["clients"]["now"] == 1, "the client to be passed")
        os.kill(handler, signal.SIGTERM)
    assert client.read_all() == b"quit"
    until(lambda: handler not in reusing.handlers, "its end")
    assert ANSWER.fullmatch(reusing.connect().ask())


def test_the_warm_up_does_not_lower_the_priority_of_the_master(daemon: MakeDaemon) -> None:
    """It sends no invalid commands, whichever are configured."""
    served = daemon(commands={"time": None, "ping": {"text": "pong"}})
    assert os.getpriority(os.PRIO_PROCESS, served.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert served.connect().quit() == b"quit"


def test_the_warm_up_works_with_any_number_of_commands(daemon: MakeDaemon) -> None:
    """A start does not depend on the size of a socket's buffer."""
    commands = {f"{number:04}": {"text": "x" * 1000} for number in range(400)}
    served = daemon(commands=commands, handlers={"spare": 1})
    client = served.connect()
    client.send(b"0399quit")
    assert client.read_all() == b"x" * 1000 + b"quit"
