"""Reloads under load, half of them invalid, and reloads during a stop: no client is affected."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tests.support.log_accounting import Sessions
from tests.support.processes import children_of, descriptors_of, in_background, stopped, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.clients import Client
    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

    Settings = dict[str, Any]

PLACE = f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}.77"
"""A loopback address that only this test uses, so that all its ports are free."""

UNCHANGED_LISTENER = {"port": 0}


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port at that address on which another process listens."""
    with socket.socket() as other:
        other.bind((PLACE, 0))
        other.listen()
        yield other.getsockname()[1]


def moved(turn: int) -> Settings:
    """Return settings with the listener on another port, and another limit."""
    listen = [UNCHANGED_LISTENER, {"address": PLACE, "port": 11_000 + turn}]
    return {"listen": listen, "limits": {"clients": 100 + turn}, "log": {"file": "tetrad.log"}}


def with_a_taken_port(turn: int, port: int) -> Settings:
    """Return settings with one port that is taken and one that is free."""
    more = [{"address": PLACE, "port": 12_000 + turn}, {"address": PLACE, "port": port}]
    return {"listen": [UNCHANGED_LISTENER, *more]}


def reload(served: Daemon) -> dict[str, Any]:
    """Send a reload to the control socket, and return the answer; {} for none."""
    client = served.connect_to_path("control.sock")
    client.send(b"reload\n")
    answer: dict[str, Any] = json.loads(client.read_all() or b"{}")
    client.close()
    return answer


def time_at(place: tuple[str, int]) -> bytes:
    """Return the answer to `time` at an address."""
    with socket.create_connection(place, 30) as client:
        client.sendall(b"time")
        return client.recv(100)


def good_and_bad(served: Daemon, port: int, turn: int) -> None:
    """Reload twice: with a valid change, and with an invalid one."""
    served.configure(**moved(turn))
    assert "changes" in reload(served)
    assert ANSWER.fullmatch(time_at((PLACE, 11_000 + turn)))
    with pytest.raises(ConnectionRefusedError):
        time_at((PLACE, 11_000 + turn - 1))
    bad: list[Settings] = [
        {"limits": {"clients": "many"}},
        {"log": {"file": "missing/it.log"}},
        with_a_taken_port(turn, port),
    ]
    served.configure(**bad[turn % len(bad)])
    assert "errors" in reload(served)
    assert ANSWER.fullmatch(time_at((PLACE, 11_000 + turn)))


def reload_under_load(daemon: MakeDaemon, port: int, turns: int, figure: Figure) -> None:
    """Reload this many times, while clients come and others stay connected."""
    served = daemon(**moved(0))
    connected = [served.served() for _ in range(5)]
    sessions = Sessions(served)
    before = len(descriptors_of(served.pid))
    with sessions.under_load(clients=2):
        for turn in range(1, turns // 2 + 1):
            good_and_bad(served, port, turn)
    served.configure(**moved(turns // 2))
    assert all(ANSWER.fullmatch(client.ask()) for client in connected)
    until(lambda: len(descriptors_of(served.pid)) == before, "the same descriptors")
    for event in ("server.reloaded", "server.reload_failed"):
        served.wait_for(event, count=turns // 2)
        assert len(served.events(event)) == turns // 2
    figure(f"{turns} reloads, {sessions.served} sessions meanwhile, none failed or was interrupted")


def test_twenty_reloads_under_load(daemon: MakeDaemon, taken: int, figure: Figure) -> None:
    """Each reload is applied completely or not at all, and no client notices it."""
    reload_under_load(daemon, taken, 20, figure)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_two_hundred_reloads_under_load(daemon: MakeDaemon, taken: int, figure: Figure) -> None:
    """As above, 200 times."""
    reload_under_load(daemon, taken, 200, figure)


def test_repeated_sighup_is_merged_into_a_few_reloads(daemon: MakeDaemon) -> None:
    """Signals that arrive during a reload cause one more reload, and do not queue."""
    served = daemon()
    served.configure(limits={"clients": 7})
    for _ in range(100):
        served.signal(signal.SIGHUP)
    served.wait_for("server.reloaded")
    served.configure(limits={"clients": 8})
    served.signal(signal.SIGHUP)
    until(lambda: served.status()["clients"]["limit"] == 8, "the last change")
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_log_to_a_fifo_without_reader_does_not_block(daemon: MakeDaemon) -> None:
    """The master does not wait for a reader."""
    served = daemon()
    os.mkfifo(os.path.join(served.folder, "pipe"))
    served.configure(log={"file": "pipe"})
    assert "changes" in reload(served)
    assert ANSWER.fullmatch(served.connect().ask())
    served.configure(log={"file": "tetrad.log"})
    assert "changes" in reload(served)


def reader_of(served: Daemon) -> int:
    """Wait for the config reader, a child of its supervisor, and return its pid."""

    def find() -> int:
        below = [pid for child in children_of(served.pid) for pid in children_of(child)]
        found = [pid for pid in below if b"helpers.config_reader" in command_of(pid)]
        return found[0] if found else 0

    return until(find, "the config reader")


def command_of(pid: int) -> bytes:
    """Return a process's command line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class PendingReload:
    """A reload that is requested and not answered yet."""

    def __init__(self, served: Daemon) -> None:
        self.served = served
        self.answer: list[dict[str, Any]] = []
        served.configure(listen=[UNCHANGED_LISTENER, {"address": "unix:new.sock"}])
        self._asking = in_background(lambda: self.answer.append(reload(served)))
        self.reader = served.watch(reader_of(served))

    def assert_refused(self) -> None:
        """Wait for the answer that the daemon is stopping."""
        self._asking.join()
        failure = {"errors": ["the daemon is stopping"], "is_file_bad": False}
        assert self.answer == [failure]


def test_a_reload_during_a_stop_is_not_applied(daemon: MakeDaemon) -> None:
    """A stopping daemon opens no listener."""
    served = daemon()
    client = served.connect()
    client.send_and_wait(b"ti")
    pending = PendingReload(served)
    with stopped(pending.reader.pid):
        served.signal(signal.SIGTERM)
        served.wait_for("server.stopping")
    pending.assert_refused()
    assert not os.path.exists(os.path.join(served.folder, "new.sock"))
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.is_gone()
    assert_no_files_left(served)


def assert_no_files_left(served: Daemon) -> None:
    """Check that only the log and the configuration are left."""
    assert set(os.listdir(served.folder)) == {"home", "tetrad.log", "tetrad.yaml"}
    assert served.events()[-1]["event"] == "server.stopped"


def test_a_stop_ends_the_config_reader(daemon: MakeDaemon) -> None:
    """The caller gets an error, and the config reader does not outlive the master."""
    served = daemon()
    pending = PendingReload(served)
    with stopped(pending.reader.pid):
        served.signal(signal.SIGTERM)
        assert served.is_gone()
        assert pending.reader.has_ended(2)
    pending.assert_refused()
    assert_no_files_left(served)


def stop_during_a_reload(daemon: MakeDaemon, step: Callable[[Daemon, Client], object]) -> None:
    """Start a reload, and stop the daemon."""
    served = daemon()
    client = served.served()
    served.configure(listen=[UNCHANGED_LISTENER, {"address": "unix:new.sock"}])
    served.signal(signal.SIGHUP)
    step(served, client)
    served.signal(signal.SIGTERM)
    assert client.read_all() == b""
    assert served.is_gone()
    assert_no_files_left(served)


@pytest.mark.parametrize(
    "step",
    [
        lambda _served, _client: None,
        lambda _served, client: client.ask(),
        lambda served, _client: reader_of(served),
        lambda served, _client: served.wait_for("server.reloaded"),
    ],
    ids=["at once", "a moment later", "as the file is read", "as it is applied"],
)
def test_a_stop_during_a_reload_stops_the_daemon(
    daemon: MakeDaemon, step: Callable[[Daemon, Client], object]
) -> None:
    """Whenever the stop comes, no process and no file is left."""
    stop_during_a_reload(daemon, step)
