"""`call` commands: the function's answer, its failures, and the process that runs it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from processes import Process, children_of, title_of, until
from tetrad import extension
from tetrad.extension import Context
from tetrad.handler import python_call

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeDaemon
    from daemons import Daemon

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

def hang(context: Context) -> str:
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
    """Send bytes, and return all answers."""
    client = daemon.connect()
    client.send(words)
    return client.read_all()


def test_the_context_has_client_connection_and_command(serve: Serve) -> None:
    """A string is answered in UTF-8."""
    served = serve("echo")
    client = served.connect()
    client.send(b"funcquit")
    answer = client.read_all().decode()
    line = served.wait_for("client.command", command="func")
    assert answer == f"func {client.name} {line['connection']}quit"
    assert (line["level"], line["bytes"]) == ("info", len(answer) - 4)


def test_a_function_may_return_bytes(serve: Serve) -> None:
    """All 256 values are sent unchanged."""
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
def test_a_failed_function_is_logged_in_one_line(serve: Serve, function: str, error: str) -> None:
    """The answer is `on_error`, and the session continues."""
    served = serve(function, on_error="sorry")
    assert ask(served, b"funcfuncquit") == b"sorrysorryquit"
    line = served.wait_for("client.command", command="func", count=2)
    assert (line["level"], line["error"]) == ("warning", error)


def test_a_too_long_answer_is_cut(serve: Serve) -> None:
    """As with programs."""
    served = serve("much", max_output="1KiB")
    assert ask(served) == bytes(1024) + b"quit"
    assert served.wait_for("client.command", command="func")["cut"] is True


def test_printed_output_goes_to_the_log(serve: Serve) -> None:
    """It is logged with the output of the function's child processes."""
    served = serve("talk")
    assert ask(served) == b"quietquit"
    assert served.wait_for("client.command", command="func")["stderr"] == r"and this\nto the log"


def test_long_output_and_errors_are_shortened_and_escaped(serve: Serve) -> None:
    """Terminal codes in them are not interpreted."""
    served = serve("shout")
    assert ask(served) == b"quit"
    line = served.wait_for("client.command", command="func")
    assert line["stderr"] == (r"\x1b" * 400)[:400]
    assert line["error"] == f"ValueError: {chr(0x1F600) * 188} (answers.py:37)"


def test_a_hanging_function_is_killed(serve: Serve, tmp_path: Path) -> None:
    """Its child processes, too, although they ignore signals."""
    served = serve("hang", timeout="3s", on_error="late")
    client = served.connect()
    client.send(b"func")
    until((tmp_path / "child").exists, "the child process")
    child = Process(int((tmp_path / "child").read_text()))
    assert client.read(4) == b"late"
    assert child.has_ended()
    child.close()
    assert served.wait_for("client.command", command="func")["error"] == "timed out"
    assert client.quit() == b"quit"


def test_a_function_ends_with_its_handler(serve: Serve, tmp_path: Path) -> None:
    """It has a title, and does not outlive its handler."""
    served = serve("hang", timeout="1h")
    served.allow_lost_handlers = True
    client = served.connect()
    client.send(b"func")
    until((tmp_path / "child").exists, "the child process")
    (supervisor,) = children_of(served.handlers[0])
    titles = {title_of(pid): pid for pid in children_of(supervisor)}
    pid = titles[f"tetrad: func for {client.name}"]
    function, child = Process(pid), Process(int((tmp_path / "child").read_text()))
    os.kill(served.handlers[0], signal.SIGKILL)
    assert function.has_ended()
    assert child.has_ended()
    function.close()
    child.close()


def test_each_call_runs_in_a_new_process(serve: Serve, tmp_path: Path) -> None:
    """No state is kept, and neither master nor handler imports the module."""
    served = serve("more")
    imported = tmp_path / "imported"
    by_start = imported.read_text()
    assert ask(served, b"funcfuncquit") == b"11quit"
    processes = imported.read_text().removeprefix(by_start).split("\n")[:-1]
    assert len(processes) == 2
    ours = {str(pid) for pid in (served.pid, served.wait_for("client.connected")["pid"])}
    assert ours.isdisjoint(word for line in processes for word in line.split()[:1])


def test_a_missing_module_fails_the_command(serve: Serve, tmp_path: Path) -> None:
    """The session and the daemon continue."""
    served = serve("echo", on_error="gone")
    (tmp_path / "answers.py").unlink()
    assert ask(served) == b"gonequit"
    line = served.wait_for("client.command", command="func")
    assert line["error"] == "NotFoundError: there is no module answers"


def test_a_context_is_immutable() -> None:
    """No attribute can be set or deleted."""
    context = Context("192.0.2.7:38276", "1f-1", "func")
    assert repr(context) == "Context('192.0.2.7:38276', '1f-1', 'func')"
    for name in ("client", "colour"):
        with pytest.raises(AttributeError):
            setattr(context, name, "")
        with pytest.raises(AttributeError):
            delattr(context, name)
    assert context.client == "192.0.2.7:38276"


def test_the_example_in_the_documentation_works() -> None:
    """The example in `tetrad.extension` can be called."""
    namespace: dict[str, Any] = {}
    lines = (extension.__doc__ or "").partition("    from tetrad")[2].partition("\n\nEach call")[0]
    source = "    from tetrad" + lines
    exec("\n".join(line[4:] for line in source.splitlines()), namespace)  # noqa: S102 - our own text
    assert (
        namespace["who"](Context("192.0.2.7:38276", "1f-1", "who?")) == "you are 192.0.2.7:38276\n"
    )


def test_an_answer_is_bytes_or_str(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any bytes-like type is accepted, other types are refused by name."""
    context = Context("", "", "")
    for given, answer in [("é", "é".encode()), (b"x", b"x"), (bytearray(b"x"), b"x")]:
        monkeypatch.setattr(python_call, "find", lambda _name, given=given: lambda _context: given)
        assert python_call.call("m:f", context) == answer
    monkeypatch.setattr(python_call, "find", lambda _name: lambda _context: 7)
    with pytest.raises(TypeError, match="m:f returned int, not bytes or str"):
        python_call.call("m:f", context)
