"""Commands that run a program: however a job ends, no process of it is left."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import ANSWER
from tests.support.jobs import WAIT, Stubborn, ask, logged, shell
from tests.support.processes import children_of, stopped, title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import MakeDaemon

Running = tuple["Daemon", "Client"]

ENDS: dict[str, tuple[str, Event, str | None]] = {
    "late": ("sleep 1000", {"timeout": "2s"}, "timed out"),
    "exit": (f"{WAIT}; exit 3", {}, "exit status 3"),
    "good": (WAIT, {}, None),
    "long": (f"{WAIT}; yes", {"max_output": 10}, None),
}
"""Programs that end: what they do after their start, their settings, and the logged error."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the programs of all tests run."""
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture
def stubborn(folder: Path) -> Iterator[Stubborn]:
    """Return a program that is hard to kill."""
    one = Stubborn(folder)
    yield one
    one.close()


@pytest.fixture
def served(shared_daemon: MakeDaemon, stubborn: Stubborn) -> Daemon:
    """Return a daemon that tests of this module share."""
    orphans = f"for n in 1 2 3; do (true &); done; cd {stubborn.folder}; touch near; {WAIT}"
    commands = {
        "prog": shell(f"{stubborn.script}sleep 1000", timeout="1h"),
        **{
            name: shell(stubborn.script + script, **{"timeout": "1h", **settings})
            for name, (script, settings, _) in ENDS.items()
        },
        "orph": shell(f"{orphans}; echo done"),
        "name": shell("sleep 1000 & echo $TETRAD_CLIENT", timeout="1h"),
        "gate": {"run": ["cat", f"{stubborn.folder}/gate"]},
    }
    return shared_daemon(listen=[{"port": 0}, {"address": "unix:t.sock"}], commands=commands)


def start_program(daemon: Daemon, stubborn: Stubborn) -> Client:
    """Return a client that waits for a stubborn program."""
    client = daemon.connect()
    client.send(b"prog")
    stubborn.watch()
    return client


def handler_of(daemon: Daemon) -> int:
    """Return the handler of the only client, by the log."""
    pid: int = daemon.wait_for("client.connected")["pid"]
    return pid


@pytest.fixture
def running(daemon: MakeDaemon, stubborn: Stubborn) -> Running:
    """Return a daemon of the test's own, and a client that waits for a stubborn program."""
    served = daemon(
        commands={"prog": shell(f"{stubborn.script}sleep 1000", timeout="1h")},
        daemon={"stop_timeout": "300ms"},
    )
    return served, start_program(served, stubborn)


@pytest.mark.parametrize("name", ENDS)
def test_no_process_outlives_its_command(served: Daemon, stubborn: Stubborn, name: str) -> None:
    """However a program ends, the processes that it started are killed, in whichever session."""
    client = served.connect()
    client.send(name.encode())
    stubborn.watch()
    stubborn.release()
    assert logged(served, name).get("error") == ENDS[name][2]
    assert stubborn.is_gone()
    assert client.quit().endswith(b"quit")


@pytest.mark.quick
def test_a_program_ends_with_its_client(served: Daemon, stubborn: Stubborn) -> None:
    """A reset is noticed while the program runs."""
    client = start_program(served, stubborn)
    client.reset()
    assert stubborn.is_gone()
    assert logged(served)["error"] == "the client disconnected"
    end = served.wait_for("client.disconnected")
    assert (end["reason"], end["commands"]) == ("reset", 1)


def test_a_program_ends_with_a_client_of_a_unix_socket(served: Daemon, stubborn: Stubborn) -> None:
    """There, a close ends both directions."""
    client = served.connect_to_path("t.sock")
    client.send(b"prog")
    stubborn.watch()
    client.close()
    assert stubborn.is_gone()
    assert logged(served)["error"] == "the client disconnected"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_program_ends_with_the_daemon(running: Running, stubborn: Stubborn, number: int) -> None:
    """After `stop_timeout`, or at once on SIGQUIT."""
    served, client = running
    served.signal(number)
    assert served.is_gone()
    assert stubborn.is_gone()
    assert client.read_all() == b""
    assert logged(served)["error"] == "the session ended: stopping"
    assert served.events("client.disconnected")[0]["commands"] == 1


def test_a_stop_waits_for_a_job(daemon: MakeDaemon, tmp_path: Path) -> None:
    """It ends and is answered."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    served = daemon(commands={"prog": shell(f"cat {gate}", timeout="1h")})
    client = served.connect()
    client.send(b"prog")
    until(lambda: any(children_of(pid) for pid in served.handlers), "the program")
    served.signal(signal.SIGTERM)
    served.wait_for("server.stopping")
    gate.write_text("done")
    assert client.read_all() == b"done"
    assert served.is_gone()
    assert logged(served)["status"] == 0


def test_a_program_ends_at_max_duration(daemon: MakeDaemon, stubborn: Stubborn) -> None:
    """Which ends the session."""
    command = shell(f"{stubborn.script}sleep 1000", timeout="1h")
    served = daemon(commands={"prog": command}, session={"max_duration": "2s"})
    client = served.connect()
    client.send(b"prog")
    stubborn.watch()
    assert client.read_all() == b""
    assert stubborn.is_gone()
    assert logged(served)["error"] == "the session ended: max_duration"
    assert served.wait_for("client.disconnected")["reason"] == "max_duration"


def test_a_program_ends_with_its_handler(running: Running, stubborn: Stubborn) -> None:
    """Also when the handler is killed."""
    served, _ = running
    served.allow_lost_handlers = True
    os.kill(served.handlers[0], signal.SIGKILL)
    assert stubborn.is_gone()


def test_a_program_ends_with_the_master(running: Running, stubborn: Stubborn) -> None:
    """Its handlers exit, and kill their jobs."""
    served, _ = running
    served.signal(signal.SIGKILL)
    assert stubborn.is_gone()


def test_a_program_ends_with_its_supervisor(served: Daemon, stubborn: Stubborn) -> None:
    """The handler kills what is left, and the session goes on."""
    client = start_program(served, stubborn)
    (supervisor,) = children_of(handler_of(served))
    assert title_of(supervisor) == f"tetrad: job supervisor: prog, client {client.name}"
    os.kill(supervisor, signal.SIGKILL)
    assert stubborn.is_gone()
    assert logged(served)["error"] == "the job supervisor was killed"
    assert ANSWER.fullmatch(client.ask())
    assert children_of(handler_of(served)) == []


def test_the_kernel_kills_a_program_with_its_supervisor(served: Daemon, stubborn: Stubborn) -> None:
    """At once, also while the handler is stopped."""
    start_program(served, stubborn)
    handler = handler_of(served)
    (supervisor,) = children_of(handler)
    with stopped(handler):
        os.kill(supervisor, signal.SIGKILL)
        assert stubborn.main.has_ended()
    assert stubborn.is_gone()


def test_a_handler_leaves_no_zombies(daemon: MakeDaemon) -> None:
    """A reusable handler has reaped the processes of all its clients."""
    commands = {"prog": shell("sleep 0.01 & echo x"), "late": shell("sleep 1000", timeout="50ms")}
    served = daemon(commands=commands, handlers={"clients_each": 1000})
    for _ in range(5):
        assert ask(served, b"proglateprogquit") == b"x\nx\nquit"
    served.wait_for("client.disconnected", count=5)
    assert [pid for handler in served.handlers for pid in children_of(handler)] == []


def assert_served_at_once(served: Daemon) -> None:
    """Check that each of many clients gets its own answer, and that no process is left."""
    clients = [served.connect() for _ in range(32)]
    for client in clients:
        client.send(b"namequit")
    for client in clients:
        assert client.read_all() == f"{client.name}\nquit".encode()
    served.wait_for("client.disconnected", count=32)
    assert [pid for handler in served.handlers for pid in children_of(handler)] == []


def test_many_clients_run_programs_at_once(served: Daemon) -> None:
    """Each of them in a handler of its own."""
    assert_served_at_once(served)


def test_many_clients_run_programs_in_reusable_handlers(daemon: MakeDaemon) -> None:
    """Some of which are spare."""
    commands = {"name": shell("sleep 1000 & echo $TETRAD_CLIENT", timeout="1h")}
    assert_served_at_once(daemon(commands=commands, handlers={"clients_each": 1000, "spare": 2}))


def test_a_start_runs_no_job(daemon: MakeDaemon, tmp_path: Path) -> None:
    """The warm-up uses immediate commands only, whatever `time` and `quit` are."""
    ran = tmp_path / "ran"
    commands = {"time": {"run": ["touch", str(ran)]}, "quit": {"run": ["touch", str(ran)]}}
    served = daemon(commands=commands, handlers={"spare": 1})
    until(lambda: served.status()["handlers"]["idle"] == 1, "a spare")
    assert not ran.exists()
    client = served.connect()
    client.send(b"time")
    until(ran.exists, "the program")


def test_input_that_arrives_during_a_job_is_kept(served: Daemon, folder: Path) -> None:
    """An invalid command discards what had arrived with it, and nothing that arrives later."""
    os.mkfifo(folder / "gate")
    client = served.connect()
    client.send(b"gatehelp me")
    writer = os.open(folder / "gate", os.O_WRONLY)  # waits for the program
    client.send(b"quit")
    os.write(writer, b"hello")
    os.close(writer)
    assert client.read_all() == b"helloquit"
    assert served.wait_for("client.invalid")["command"] == "help"


def test_orphans_that_have_ended_are_reaped(served: Daemon, stubborn: Stubborn) -> None:
    """While their program still runs."""
    client = served.connect()
    client.send(b"orphquit")
    until((stubborn.folder / "near").exists, "the program")
    (supervisor,) = children_of(handler_of(served))
    until(lambda: len(children_of(supervisor)) == 1, "no child but the program")
    stubborn.release()
    assert client.read_all() == b"done\nquit"
