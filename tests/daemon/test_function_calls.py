"""Commands that call a Python function: its answer, its errors, and where it runs."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.daemons import Daemon
from tests.support.processes import Process, children_of, title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fixtures import MakeDaemon

MODULE = r"""
import os, sys, time
from tetrad.extension import Context

with open(os.path.join(os.path.dirname(__file__), "imported"), "a") as note:
    note.write(f"{os.getpid()} {os.getppid()}\n")

count = 0

def echo(context: Context) -> str:
    return f"{context.command} {context.client} {context.connection}"

def data(context: Context) -> bytes:
    return bytes(range(256))

def more(context: Context) -> str:
    global count
    count += 1
    return str(count)

def fail(context: Context) -> str:
    raise ValueError("not\ntoday")

def none(context: Context) -> None:
    pass

def much(context: Context) -> bytes:
    return bytes(10_000_000)

def talk(context: Context) -> str:
    print("to the log")
    os.system("echo and this")
    return "quiet"

def shout(context: Context) -> str:
    sys.stderr.write("\x1b" * 1000)
    raise ValueError("\U0001f600" * 1000)

def leave(context: Context) -> str:
    sys.exit(0)

def crash(context: Context) -> str:
    os.kill(os.getpid(), 11)

def stay(context: Context) -> str:
    import signal
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.system("setsid sleep 1000 & echo $! > child.new; mv child.new " + os.path.join(
        os.path.dirname(__file__), "child"))
    while True:
        time.sleep(1000)
"""

COMMANDS = {
    "func": {"call": "answers:echo"},
    "data": {"call": "answers:data"},
    "more": {"call": "answers:more"},
    "fail": {"call": "answers:fail", "on_error": "sorry"},
    "none": {"call": "answers:none", "on_error": "sorry"},
    "leav": {"call": "answers:leave", "on_error": "sorry"},
    "cras": {"call": "answers:crash", "on_error": "sorry"},
    "much": {"call": "answers:much", "max_output": "1KiB"},
    "talk": {"call": "answers:talk"},
    "shou": {"call": "answers:shout"},
    "stay": {"call": "answers:stay", "timeout": "3s", "on_error": "late"},
}
"""The commands of the daemon that tests of this module share."""


class Serve(Protocol):
    """Starts a daemon whose command `func` calls a function of the module."""

    def __call__(self, function: str, **settings: object) -> Daemon:
        """Start it."""
        ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the shared module."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "answers.py").write_text(MODULE)
    return folder


@pytest.fixture(scope="module")
def _daemon_of_module(folder: Path) -> Iterator[Daemon]:
    daemon = Daemon(str(folder), {"commands": COMMANDS})
    add_to_path(daemon, folder)
    yield daemon.start()
    daemon.finish()


@pytest.fixture
def served(_daemon_of_module: Daemon) -> Daemon:
    """Return the daemon with all commands, without sessions."""
    _daemon_of_module.hand_over()
    return _daemon_of_module


@pytest.fixture
def serve(prepared: MakeDaemon, tmp_path: Path) -> Serve:
    """Start daemons that can import a module of the test's own."""
    (tmp_path / "answers.py").write_text(MODULE)

    def start(function: str, **settings: object) -> Daemon:
        made = prepared(commands={"func": {"call": f"answers:{function}", **settings}})
        add_to_path(made, tmp_path)
        return made.start()

    return start


def add_to_path(daemon: Daemon, folder: Path) -> None:
    """Let a daemon import the modules in a folder."""
    path = [str(folder), daemon.environment.get("PYTHONPATH", "")]
    daemon.environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))


def ask(daemon: Daemon, words: bytes = b"funcquit") -> bytes:
    """Send commands, and return all answers."""
    client = daemon.connect()
    client.send(words)
    return client.read_all()


@pytest.mark.quick
def test_a_function_gets_its_context(served: Daemon) -> None:
    """The client, the id of the session, and the command."""
    client = served.connect()
    client.send(b"funcquit")
    answer = client.read_all().decode()
    line = served.wait_for("client.command", command="func")
    assert answer == f"func {client.name} {line['connection']}quit"
    assert (line["level"], line["bytes"]) == ("info", len(answer) - 4)


def test_a_function_may_return_bytes(served: Daemon) -> None:
    """All 256 values, unchanged."""
    assert ask(served, b"dataquit") == bytes(range(256)) + b"quit"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("fail", "ValueError: not today (answers.py:22)"),
        ("none", "TypeError: answers:none returned NoneType, not bytes or str"),
        ("leav", "SystemExit: 0 (answers.py:40)"),
        ("cras", "killed by SIGSEGV"),
    ],
)
def test_an_error_of_a_function_is_logged_in_one_line(
    served: Daemon, command: str, error: str
) -> None:
    """The answer is `on_error`, and the session goes on."""
    assert ask(served, f"{command}{command}quit".encode()) == b"sorrysorryquit"
    line = served.wait_for("client.command", command=command, count=2)
    assert (line["level"], line["error"]) == ("warning", error)


def test_a_long_answer_is_cut(served: Daemon) -> None:
    """As that of a program."""
    assert ask(served, b"muchquit") == bytes(1024) + b"quit"
    assert served.wait_for("client.command", command="much")["cut"] is True


def test_what_a_function_prints_is_not_its_answer(served: Daemon) -> None:
    """It goes to the log, with the output of programs that the function runs."""
    assert ask(served, b"talkquit") == b"quietquit"
    assert served.wait_for("client.command", command="talk")["stderr"] == r"and this\nto the log"


def test_long_errors_are_cut_and_escaped_in_the_log(served: Daemon) -> None:
    """No terminal obeys them."""
    assert ask(served, b"shouquit") == b"quit"
    line = served.wait_for("client.command", command="shou")
    assert line["stderr"] == (r"\x1b" * 400)[:400]
    assert line["error"] == f"ValueError: {chr(0x1F600) * 188} (answers.py:37)"


def test_a_function_that_ignores_signals_is_killed_at_its_timeout(
    served: Daemon, folder: Path
) -> None:
    """With the processes that it started."""
    client = served.connect()
    client.send(b"stay")
    until((folder / "child").exists, "its child")
    child = Process(int((folder / "child").read_text()))
    assert client.read(4) == b"late"
    assert child.has_ended()
    child.close()
    assert served.wait_for("client.command", command="stay")["error"] == "timed out"
    assert client.quit() == b"quit"


def test_a_function_ends_with_its_handler(serve: Serve, tmp_path: Path) -> None:
    """Which is killed; and the process titles show what runs."""
    served = serve("stay", timeout="1h")
    served.allow_lost_handlers = True
    client = served.connect()
    client.send(b"func")
    until((tmp_path / "child").exists, "its child")
    (supervisor,) = children_of(served.handlers[0])
    titles = {title_of(pid): pid for pid in children_of(supervisor)}
    pid = titles[f"tetrad: job: func, client {client.name}"]
    function, child = Process(pid), Process(int((tmp_path / "child").read_text()))
    os.kill(served.handlers[0], signal.SIGKILL)
    assert function.has_ended()
    assert child.has_ended()
    function.close()
    child.close()


def test_each_call_is_a_process_of_its_own(served: Daemon, folder: Path) -> None:
    """No state is kept, and neither master nor handler imports the module."""
    imported = folder / "imported"
    by_start = imported.read_text()
    assert ask(served, b"moremorequit") == b"11quit"
    processes = imported.read_text().removeprefix(by_start).split("\n")[:-1]
    assert len(processes) == 2
    ours = {str(pid) for pid in (served.pid, served.wait_for("client.connected")["pid"])}
    assert ours.isdisjoint(word for line in processes for word in line.split()[:1])


def test_a_module_that_is_gone_makes_the_command_fail(serve: Serve, tmp_path: Path) -> None:
    """But not the session, nor the daemon."""
    served = serve("echo", on_error="gone")
    (tmp_path / "answers.py").unlink()
    assert ask(served) == b"gonequit"
    line = served.wait_for("client.command", command="func")
    assert line["error"] == "NotFoundError: no module named answers"
