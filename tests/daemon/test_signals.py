"""Signals to the master and its children, and processes that are killed."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import children_of, in_background, status_of, stopped, until
from tetrad.system import fork

if TYPE_CHECKING:
    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon
    from tests.support.processes import Process

EXIT_SECONDS = 2.0
"""The time within which all processes exit after the master was killed."""

ECHO = [{"port": 0}, {"port": 0, "service": "echo"}]


def children(daemon: Daemon) -> list[Process]:
    """Return the master's children."""
    return [daemon.watch(pid) for pid in daemon.processes[1:]]


def last_event(daemon: Daemon) -> str:
    """Return the name of the last event of the log."""
    event: str = daemon.events()[-1]["event"]
    return event


@pytest.mark.quick
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_incomplete_command_is_finished(daemon: MakeDaemon, number: int) -> None:
    """`ti` before the signal and `me` after it are answered, then the connection closes."""
    served = daemon()
    client = served.connect()
    client.send_and_wait(b"ti")
    served.signal(number)
    served.wait_for("server.stopping")
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.is_gone()
    assert served.events("client.disconnected")[0]["reason"] == "stopping"
    assert last_event(served) == "server.stopped"


@pytest.mark.quick
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_idle_clients_are_closed_at_once(daemon: MakeDaemon, number: int) -> None:
    """Clients between commands or before their first one read the end of the stream."""
    served = daemon(listen=ECHO, daemon={"stop_timeout": "1h"})
    clients = [served.served(), served.connect(), served.connect(1)]
    served.signal(number)
    assert [client.read_all() for client in clients] == [b"", b"", b""]
    assert served.is_gone()
    reasons = [line["reason"] for line in served.events("client.disconnected")]
    assert reasons == ["stopping"] * 3


def test_a_stop_waits_no_longer_than_its_timeout(daemon: MakeDaemon) -> None:
    """A command that is never completed is aborted after `stop_timeout`."""
    served = daemon(daemon={"stop_timeout": "200ms"})
    client = served.connect()
    client.send_and_wait(b"ti")
    served.signal(signal.SIGTERM)
    assert client.read_all() == b""
    assert served.is_gone()
    assert served.events("client.disconnected")[0]["reason"] == "stopping"


def test_a_client_that_does_not_read_is_closed_by_a_stop(daemon: MakeDaemon) -> None:
    """A session that blocks in sending ends after `stop_timeout`."""
    served = daemon(listen=ECHO, daemon={"stop_timeout": "200ms"}, session={"send_timeout": None})
    client = served.connect(1)
    flood = in_background(lambda: client.send_until_closed(bytes(65536)))
    served.wait_for("client.connected")
    served.signal(signal.SIGTERM)
    assert served.is_gone()
    flood.join()


def test_a_handler_that_does_not_exit_is_killed(daemon: MakeDaemon) -> None:
    """A suspended handler is killed after `stop_timeout`."""
    served = daemon(daemon={"stop_timeout": "100ms"})
    served.allow_lost_handlers = True
    served.served()
    with stopped(served.handlers[0]):
        served.signal(signal.SIGTERM)
        assert served.is_gone()
    assert last_event(served) == "server.stopped"


def test_a_second_sigterm_changes_nothing(daemon: MakeDaemon) -> None:
    """A stop stays graceful."""
    served = daemon()
    client = served.connect()
    client.send_and_wait(b"ti")
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    served.signal(signal.SIGTERM)
    assert served.status()["state"] == "stopping"
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.is_gone()
    assert len(served.events("server.stopping")) == 1


def test_sigquit_stops_at_once(daemon: MakeDaemon) -> None:
    """An incomplete command is aborted."""
    served = daemon(daemon={"stop_timeout": "1h"})
    client = served.connect()
    client.send_and_wait(b"ti")
    served.signal(signal.SIGQUIT)
    assert client.read_all() == b""
    assert served.is_gone()
    assert last_event(served) == "server.stopped"


def test_sigquit_ends_a_graceful_stop(daemon: MakeDaemon) -> None:
    """An operator can turn a graceful stop into an immediate one."""
    served = daemon(daemon={"stop_timeout": "1h"})
    client = served.connect()
    client.send_and_wait(b"ti")
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    served.signal(signal.SIGQUIT)
    assert client.read_all() == b""
    assert served.is_gone()


def test_a_stopped_daemon_leaves_nothing_but_its_log(daemon: MakeDaemon) -> None:
    """Pidfile and sockets are removed, and the log ends with `server.stopped`."""
    served = daemon()
    served.served()
    served.signal(signal.SIGTERM)
    assert served.is_gone()
    assert set(os.listdir(served.folder)) == {"home", "tetrad.log", "tetrad.yaml"}
    assert last_event(served) == "server.stopped"


@pytest.mark.quick
def test_sighup_reloads(daemon: MakeDaemon) -> None:
    """SIGHUP is `tetrad reload`: the file is applied, and the changes are logged."""
    served = daemon()
    served.configure(limits={"clients": 1})
    served.signal(signal.SIGHUP)
    assert "limits.clients" in served.wait_for("server.reloaded")["changes"]
    assert served.status()["clients"]["limit"] == 1


@pytest.mark.quick
def test_sighup_with_a_bad_file_changes_nothing(shared_daemon: MakeDaemon) -> None:
    """The problem is logged, and the old configuration stays in use."""
    served = shared_daemon()
    served.configure(limits={"clients": "many"}, handlers={"spare": 3})
    served.signal(signal.SIGHUP)
    line = served.wait_for("server.reload_failed")
    assert line["level"] == "error"
    assert f"{served.file}:" in line["errors"][0]
    served.configure(limits={"clients": 1000}, handlers={"spare": 0})
    assert served.status()["clients"]["limit"] == 1000
    assert ANSWER.fullmatch(served.connect().ask())


@pytest.mark.quick
def test_sigusr1_reopens_the_log(daemon: MakeDaemon) -> None:
    """After a rename and SIGUSR1, the log continues at its own path."""
    served = daemon()
    served.wait_for("server.listening")
    os.rename(served.log_file, served.log_file + ".1")
    served.signal(signal.SIGUSR1)
    assert served.wait_for("log.reopened")["level"] == "info"
    served.served()
    served.wait_for("client.command")


def test_no_line_is_lost_while_the_log_is_rotated(daemon: MakeDaemon) -> None:
    """Each command is in one of the files, as a complete line."""
    served = daemon()
    served.wait_for("server.listening")
    clients = [served.served() for _ in range(5)]
    for turn in range(5):
        os.rename(served.log_file, f"{served.log_file}.{turn}")
        for client in clients:
            client.send(b"time" * 20)
        served.signal(signal.SIGUSR1)
        assert all(ANSWER.match(client.read(19 * 20)) for client in clients)
        until(lambda: os.path.exists(served.log_file), "the new log")
    served.stop()
    lines = served.events("client.command")
    for turn in range(5):
        served.log_file = f"{served.folder}/tetrad.log.{turn}"
        lines += served.events("client.command")
    assert len(lines) == 5 * (1 + 5 * 20)


@pytest.mark.quick
def test_a_moved_log_is_detected(daemon: MakeDaemon) -> None:
    """Without a signal, events after a rename are in a new file."""
    served = daemon()
    served.wait_for("server.listening")
    os.rename(served.log_file, served.log_file + ".1")
    served.served()
    served.wait_for("client.command")
    assert served.events("log.reopened")


def test_a_replaced_log_is_detected(daemon: MakeDaemon) -> None:
    """Another file at the path, as logrotate creates it, becomes the log."""
    served = daemon()
    served.wait_for("server.listening")
    os.rename(served.log_file, served.log_file + ".1")
    with open(served.log_file, "x", encoding="ascii"):
        pass
    served.served()
    served.wait_for("client.command")


def test_the_master_ignores_sigchld(shared_daemon: MakeDaemon) -> None:
    """The kernel reaps the handlers."""
    ignored = int(status_of(shared_daemon().pid)["SigIgn"], 16)
    assert ignored & 1 << (signal.SIGCHLD - 1)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_a_handler_ignores_the_other_signals(shared_daemon: MakeDaemon, number: int) -> None:
    """A signal from a terminal does not end the session."""
    served = shared_daemon()
    client = served.served()
    client.send_and_wait(b"ti")
    os.kill(served.wait_for("client.connected", client=client.name)["pid"], number)
    client.send(b"me")
    assert ANSWER.fullmatch(client.read(19))


def test_sigterm_to_a_handler_ends_its_session_only(shared_daemon: MakeDaemon) -> None:
    """The handler finishes its command first; other sessions continue."""
    served = shared_daemon()
    client, other = served.connect(), served.served()
    client.send_and_wait(b"ti")
    pid = served.wait_for("client.connected", client=client.name)["pid"]
    os.kill(pid, signal.SIGTERM)
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert ANSWER.fullmatch(other.ask())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_the_logger_ignores_signals(shared_daemon: MakeDaemon, number: int) -> None:
    """A signal to the process group does not lose the last lines of the log."""
    served = shared_daemon()
    logger = served.logger
    os.kill(logger, number)
    served.served()
    served.wait_for("client.command")
    assert served.logger == logger


@pytest.mark.quick
def test_all_processes_exit_when_the_master_is_killed(daemon: MakeDaemon) -> None:
    """Handlers in every state, and the logger."""
    served = daemon(listen=ECHO, handlers={"spare": 1}, session={"send_timeout": None})
    served.served().send_and_wait(b"ti")
    silent, busy = served.connect(), served.connect(1)
    served.wait_for("client.connected", client=busy.name)
    flood = in_background(lambda: busy.send_until_closed(bytes(65536)))
    remaining = children(served)
    assert len(remaining) >= 4
    served.signal(signal.SIGKILL)
    assert served.is_gone()
    assert all(process.has_ended(EXIT_SECONDS) for process in remaining)
    assert silent.is_refused()
    flood.join()


def test_a_start_after_a_kill_succeeds(daemon: MakeDaemon) -> None:
    """The files of the killed master do not prevent it."""
    served = daemon(listen=[{"port": 0}, {"address": "unix:t.sock"}])
    served.signal(signal.SIGKILL)
    assert served.is_gone()
    assert served.tetrad("status").status == 1
    served.start()
    assert ANSWER.fullmatch(served.connect().ask())
    assert ANSWER.fullmatch(served.connect_to_path("t.sock").ask())


def test_a_logger_that_was_killed_is_replaced(daemon: MakeDaemon) -> None:
    """The next logger continues the log, and `log.lost` warns of losses of unknown size."""
    served = daemon()
    client = served.served()
    killed = served.watch(served.logger)
    killed.signal(signal.SIGKILL)
    assert killed.has_ended()
    assert ANSWER.fullmatch(client.ask())
    assert served.wait_for("log.lost")["level"] == "error"
    client.quit()
    assert served.wait_for("client.disconnected")["commands"] == 3
    assert served.logger != killed.pid


def test_events_without_a_logger_are_not_lost(daemon: MakeDaemon) -> None:
    """They wait in the pipe for the next logger."""
    served = daemon()
    client = served.served()
    served.wait_for("client.command")
    os.kill(served.logger, signal.SIGKILL)
    client.send(b"time" * 100)
    client.read(19 * 100)
    served.wait_for("client.command", count=101)


@pytest.mark.quick
def test_a_killed_handler_is_logged_as_lost(daemon: MakeDaemon) -> None:
    """The event names its client, and another client can connect."""
    served = daemon(limits={"clients": 1})
    served.allow_lost_handlers = True
    client = served.served()
    handler = served.handlers[0]
    os.kill(handler, signal.SIGKILL)
    assert client.is_refused()
    line = served.wait_for("handler.lost")
    assert (line["handler"], line["client"], line["level"]) == (handler, client.name, "error")
    assert ANSWER.fullmatch(served.connect().ask())
    assert served.status()["handlers"]["lost"] == 1


def test_a_new_logger_ignores_signals_from_its_start(daemon: MakeDaemon) -> None:
    """A ^C may reach the process group while the logger still imports its modules."""
    served = daemon()
    [logger] = children_of(served.pid)
    for number in fork.MASTER_SIGNALS:
        os.kill(logger, number)
    served.wait_for("server.listening")
    assert children_of(served.pid) == [logger]
    assert not served.events("log.lost")
