"""Reloads under load, many of them bad, some in the middle of a stop: nobody notices."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from clients import ANSWER
from damage.log_accounting import Sessions
from processes import children_of, descriptors_of, in_background, stopped, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clients import Client
    from conftest import Figure, MakeDaemon
    from daemons import Daemon

    Settings = dict[str, Any]

PLACE = f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}.77"
"""An address of this test alone, so that its ports are."""

STAYS = {"port": 0}


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port at that address at which somebody else listens."""
    with socket.socket() as other:
        other.bind((PLACE, 0))
        other.listen()
        yield other.getsockname()[1]


def moved(turn: int) -> Settings:
    """Move a listener to another port, and another detail with it."""
    listen = [STAYS, {"address": PLACE, "port": 11_000 + turn}]
    return {"listen": listen, "limits": {"clients": 100 + turn}, "log": {"file": "tetrad.log"}}


def with_a_taken_port(turn: int, port: int) -> Settings:
    """Ask for a port that cannot be had, and for another that could."""
    more = [{"address": PLACE, "port": 12_000 + turn}, {"address": PLACE, "port": port}]
    return {"listen": [STAYS, *more]}


def reload(served: Daemon) -> dict[str, Any]:
    """Ask the daemon itself, and return its answer, {} for none: a command would take longer."""
    client = served.connect_to_path("control.sock")
    client.send(b"reload\n")
    answer: dict[str, Any] = json.loads(client.read_all() or b"{}")
    client.close()
    return answer


def time_at(place: tuple[str, int]) -> bytes:
    """Return what a client gets there."""
    with socket.create_connection(place, 30) as client:
        client.sendall(b"time")
        return client.recv(100)


def good_and_bad(served: Daemon, port: int, turn: int) -> None:
    """Reload twice: once with a change that is applied, once with one that cannot be."""
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
    """Reload that many times, while clients come, and others stay."""
    served = daemon(**moved(0))
    staying = [served.served() for _ in range(5)]
    sessions = Sessions(served)
    before = len(descriptors_of(served.pid))
    with sessions.meanwhile(clients=2):
        for turn in range(1, turns // 2 + 1):
            good_and_bad(served, port, turn)
    served.configure(**moved(turns // 2))
    assert all(ANSWER.fullmatch(client.ask()) for client in staying)
    until(lambda: len(descriptors_of(served.pid)) == before, "the same descriptors")
    for event in ("server.reloaded", "server.reload_failed"):
        served.wait_for(event, count=turns // 2)
        assert len(served.events(event)) == turns // 2
    figure(f"{turns} reloads, {sessions.served} sessions meanwhile, none failed, none was cut")


def test_twenty_reloads_under_load(daemon: MakeDaemon, taken: int, figure: Figure) -> None:
    """Half of them bad: each is applied whole or not at all, and no client can tell."""
    reload_under_load(daemon, taken, 20, figure)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_two_hundred_reloads_under_load(daemon: MakeDaemon, taken: int, figure: Figure) -> None:
    """As above, two hundred times."""
    reload_under_load(daemon, taken, 200, figure)


def test_a_hundred_orders_to_reload_are_obeyed_by_a_few_readings(daemon: MakeDaemon) -> None:
    """Signals that come while the file is read are not forgotten, and do not queue up."""
    served = daemon()
    served.configure(limits={"clients": 7})
    for _ in range(100):
        served.signal(signal.SIGHUP)
    served.wait_for("server.reloaded")
    served.configure(limits={"clients": 8})
    served.signal(signal.SIGHUP)
    until(lambda: served.status()["clients"]["limit"] == 8, "the last word")
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_log_that_is_a_pipe_without_a_reader_holds_nobody_up(daemon: MakeDaemon) -> None:
    """The master does not wait for somebody to read it."""
    served = daemon()
    os.mkfifo(os.path.join(served.folder, "pipe"))
    served.configure(log={"file": "pipe"})
    assert "changes" in reload(served)
    assert ANSWER.fullmatch(served.connect().ask())
    served.configure(log={"file": "tetrad.log"})
    assert "changes" in reload(served)


def reader_of(served: Daemon) -> int:
    """Wait for the program that reads the file, and return its pid."""

    def look() -> int:
        children = children_of(served.pid)
        found = [pid for pid in children if b"helpers.config_reader" in command_of(pid)]
        return found[0] if found else 0

    return until(look, "a program that reads the file")


def command_of(pid: int) -> bytes:
    """Return a program's command line."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class Reloads:
    """A daemon in the middle of a reload that is asked for and not answered yet."""

    def __init__(self, served: Daemon) -> None:
        self.served = served
        self.answer: list[dict[str, Any]] = []
        served.configure(listen=[STAYS, {"address": "unix:new.sock"}])
        self._asking = in_background(lambda: self.answer.append(reload(served)))
        self.reader = served.watch(reader_of(served))

    def assert_refused(self) -> None:
        """Wait for the answer: that it is too late."""
        self._asking.join()
        failure = {"errors": ["the daemon is stopping"], "is_file_bad": False}
        assert self.answer == [failure]


def test_a_reload_that_is_read_while_the_daemon_stops_is_not_applied(daemon: MakeDaemon) -> None:
    """No listener is opened by a daemon that lets its last sessions finish."""
    served = daemon()
    client = served.connect()
    client.say(b"ti")
    reloads = Reloads(served)
    with stopped(reloads.reader.pid):
        served.signal(signal.SIGTERM)
        served.wait_for("server.stopping")
    reloads.assert_refused()
    assert not os.path.exists(os.path.join(served.folder, "new.sock"))
    client.send(b"me")
    assert ANSWER.fullmatch(client.read_all())
    assert served.is_gone()
    assert_left_nothing(served)


def assert_left_nothing(served: Daemon) -> None:
    """Check that nothing is left of it but its log."""
    assert set(os.listdir(served.folder)) == {"home", "tetrad.log", "tetrad.yaml"}
    assert served.events()[-1]["event"] == "server.stopped"


def test_a_stop_ends_the_reading_of_a_file(daemon: MakeDaemon) -> None:
    """Who asked is told so, and the program that reads does not outlive its master."""
    served = daemon()
    reloads = Reloads(served)
    with stopped(reloads.reader.pid):
        served.signal(signal.SIGTERM)
        assert served.is_gone()
        assert reloads.reader.has_ended(2)
    reloads.assert_refused()
    assert_left_nothing(served)


def stop_during_a_reload(daemon: MakeDaemon, order: Callable[[Daemon, Client], object]) -> None:
    """Reload and end it in one breath."""
    served = daemon()
    client = served.served()
    served.configure(listen=[STAYS, {"address": "unix:new.sock"}])
    served.signal(signal.SIGHUP)
    order(served, client)
    served.signal(signal.SIGTERM)
    assert client.read_all() == b""
    assert served.is_gone()
    assert_left_nothing(served)


@pytest.mark.parametrize(
    "order",
    [
        lambda _served, _client: None,
        lambda _served, client: client.ask(),
        lambda served, _client: reader_of(served),
        lambda served, _client: served.wait_for("server.reloaded"),
    ],
    ids=["at once", "a moment later", "as the file is read", "as it is applied"],
)
def test_a_stop_in_the_middle_of_a_reload_is_a_stop(
    daemon: MakeDaemon, order: Callable[[Daemon, Client], object]
) -> None:
    """Whenever it comes, nothing runs and nothing is left."""
    stop_during_a_reload(daemon, order)
