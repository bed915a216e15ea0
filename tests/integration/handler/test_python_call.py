"""Commands that call a Python function: its answer, its errors, and where it runs."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.processes import Process, children_of, title_of, until
from tetrad import extension
from tetrad.extension import Context
from tetrad.handler import python_call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemons import Daemon
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
        sum(range(10_000_000))
"""


class Serve(Protocol):
    """Starts a daemon whose command `func` calls a function of the module."""

    def __call__(self, function: str, **settings: object) -> Daemon:
        """Start it."""
        ...


@pytest.fixture
def serve(prepared: MakeDaemon, tmp_path: Path) -> Serve:
    """Start daemons that can import the module."""
    (tmp_path / "answers.py").write_text(MODULE)

    def start(function: str, **settings: object) -> Daemon:
        made = prepared(commands={"func": {"call": f"answers:{function}", **settings}})
        path = [str(tmp_path), made.environment.get("PYTHONPATH", "")]
        made.environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        return made.start()

    return start


def ask(daemon: Daemon, words: bytes = b"funcquit") -> bytes:
    """Send commands, and return all answers."""
    client = daemon.connect()
    client.send(words)
    return client.read_all()


def test_a_function_gets_its_context(serve: Serve) -> None:
    """The client, the id of the session, and the command."""
    served = serve("echo")
    client = served.connect()
    client.send(b"funcquit")
    answer = client.read_all().decode()
    line = served.wait_for("client.command", command="func")
    assert answer == f"func {client.name} {line['connection']}quit"
    assert (line["level"], line["bytes"]) == ("info", len(answer) - 4)


def test_a_function_may_return_bytes(serve: Serve) -> None:
    """All 256 values, unchanged."""
    assert ask(serve("data")) == bytes(range(256)) + b"quit"


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("fail", "ValueError: not today (answers.py:22)"),
        ("none", "TypeError: answers:none returned NoneType, not bytes or str"),
        ("leave", "SystemExit: 0 (answers.py:40)"),
        ("crash", "killed by SIGSEGV"),
    ],
)
def test_an_error_of_a_function_is_logged_in_one_line(
    serve: Serve, function: str, error: str
) -> None:
    """The answer is `on_error`, and the session goes on."""
    served = serve(function, on_error="sorry")
    assert ask(served, b"funcfuncquit") == b"sorrysorryquit"
    line = served.wait_for("client.command", command="func", count=2)
    assert (line["level"], line["error"]) == ("warning", error)


def test_a_long_answer_is_cut(serve: Serve) -> None:
    """As that of a program."""
    served = serve("much", max_output="1KiB")
    assert ask(served) == bytes(1024) + b"quit"
    assert served.wait_for("client.command", command="func")["cut"] is True


def test_what_a_function_prints_is_not_its_answer(serve: Serve) -> None:
    """It goes to the log, with the output of programs that the function runs."""
    served = serve("talk")
    assert ask(served) == b"quietquit"
    assert served.wait_for("client.command", command="func")["stderr"] == r"and this\nto the log"


def test_long_errors_are_cut_and_escaped_in_the_log(serve: Serve) -> None:
    """No terminal obeys them."""
    served = serve("shout")
    assert ask(served) == b"quit"
    line = served.wait_for("client.command", command="func")
    assert line["stderr"] == (r"\x1b" * 400)[:400]
    assert line["error"] == f"ValueError: {chr(0x1F600) * 188} (answers.py:37)"


def test_a_function_that_ignores_signals_is_killed_at_its_timeout(
    serve: Serve, tmp_path: Path
) -> None:
    """With the processes that it started."""
    served = serve("stay", timeout="3s", on_error="late")
    client = served.connect()
    client.send(b"func")
    until((tmp_path / "child").exists, "its child")
    child = Process(int((tmp_path / "child").read_text()))
    assert client.read(4) == b"late"
    assert child.has_ended()
    child.close()
    assert served.wait_for("client.command", command="func")["error"] == "timed out"
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


def test_each_call_is_a_process_of_its_own(serve: Serve, tmp_path: Path) -> None:
    """No state is kept, and neither master nor handler imports the module."""
    served = serve("more")
    imported = tmp_path / "imported"
    by_start = imported.read_text()
    assert ask(served, b"funcfuncquit") == b"11quit"
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


def test_a_context_is_immutable() -> None:
    """Its repr is the call that makes it."""
    context = Context("192.0.2.7:38276", "1f-1", "func")
    assert repr(context) == "Context('192.0.2.7:38276', '1f-1', 'func')"
    for name in ("client", "colour"):
        with pytest.raises(AttributeError):
            setattr(context, name, "")
        with pytest.raises(AttributeError):
            delattr(context, name)
    assert context.client == "192.0.2.7:38276"


def test_the_example_in_the_docstring_works() -> None:
    """The function that `tetrad.extension` shows can be called."""
    namespace: dict[str, Any] = {}
    lines = (extension.__doc__ or "").partition("    from tetrad")[2].partition("\n\nEach call")[0]
    source = "    from tetrad" + lines
    exec("\n".join(line[4:] for line in source.splitlines()), namespace)  # noqa: S102 - a docstring of the package
    assert (
        namespace["who"](Context("192.0.2.7:38276", "1f-1", "who?")) == "you are 192.0.2.7:38276\n"
    )


def test_an_answer_is_bytes_or_a_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any bytes-like object; everything else is a TypeError that names the type."""
    context = Context("", "", "")
    for given, answer in [("é", "é".encode()), (b"x", b"x"), (bytearray(b"x"), b"x")]:
        monkeypatch.setattr(python_call, "find", lambda _name, given=given: lambda _context: given)
        assert python_call.call("m:f", context) == answer
    monkeypatch.setattr(python_call, "find", lambda _name: lambda _context: 7)
    with pytest.raises(TypeError, match="m:f returned int, not bytes or str"):
        python_call.call("m:f", context)
