"""Commands that run a program: its answer, its environment, and the session around it."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tests.support.control_requests import reload
from tests.support.jobs import ask, logged, shell
from tests.support.processes import children_of, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon

TERMINATORS = ["\n", "\r\n", "|", "\0"]

FAILURES = {
    "ex3": ("echo lost; exit 3", {"status": 3, "error": "exit status 3"}),
    "seg": ("echo lost; kill -SEGV $$", {"error": "killed by SIGSEGV"}),
    "kil": ("echo lost; kill -KILL $$", {"error": "killed by SIGKILL"}),
    "ex4": ("echo lost; exec >&- 2>&-; exit 4", {"status": 4, "error": "exit status 4"}),
}
"""Programs that fail, and the fields of their log line."""

ON_ERROR = {"0": None, "1": "sorry"}

COMMANDS: dict[str, dict[str, Any]] = {
    "prog": shell("printf 'a\\0b\\n'"),
    **{
        name + number: shell(script, on_error=on_error)
        for name, (script, _) in FAILURES.items()
        for number, on_error in ON_ERROR.items()
    },
    "hang": shell("echo lost; exec sleep 1000", timeout="300ms", on_error="late"),
    "mute": shell("echo lost; exec >&- 2>&-; exec sleep 1000", timeout="300ms", on_error="late"),
    "yes1": {"run": ["yes"], "max_output": "100KiB", "timeout": "1h"},
    "yes2": shell("yes; sleep 1000", max_output="100KiB", timeout="1h"),
    "head": shell("head -c 300000 /dev/zero", max_output=300000),
    "oops": shell("printf 'oops\\n\\377' >&2; head -c 1000000 /dev/zero >&2; echo ok"),
    "env+": {"run": ["env"], "env": {"LANG": "C", "EMPTY": "", "COLOUR": "light red"}},
    "fds?": {"run": ["ls", "-l", "/proc/self/fd"]},
    "sigs": {"run": ["grep", "Sig[BI]", "/proc/self/status"]},
    "sess": shell("ulimit -Sn; ps -o sid= -p $$; echo $$"),
    "cat?": {"run": ["cat"], "timeout": "1h"},
    "slow": shell("sleep 0.1; echo x"),
    "text": {"text": "t"},
    "putx": shell("printf x"),
    **{
        f"lin{number}": {"run": ["printf", "%b", "x" + terminator.replace("\0", "\\0000")]}
        for number, terminator in enumerate(TERMINATORS)
    },
    "none": {"run": ["true"]},
    "fail": {"run": ["false"], "on_error": "sorry"},
    "lost": {"run": ["false"]},
}


@pytest.fixture
def served(shared_daemon: MakeDaemon) -> Daemon:
    """Return a daemon with all these commands, and a listener for each terminator."""
    terminated = [{"port": 0, "reply_terminator": terminator} for terminator in TERMINATORS]
    return shared_daemon(listen=[{"port": 0}, *terminated], commands=COMMANDS)


# Its answer


@pytest.mark.quick
def test_the_answer_is_the_output_of_the_program(served: Daemon) -> None:
    """Its standard output unchanged; the log has status, duration and bytes."""
    assert ask(served) == b"a\0b\nquit"
    line = logged(served)
    assert (line["level"], line["status"], line["bytes"]) == ("info", 0, 4)
    assert 0 < line["duration"] < 30
    assert line.keys().isdisjoint({"error", "stderr", "cut"})
    end = served.wait_for("client.disconnected")
    assert (end["reason"], end["commands"], end["bytes_in"], end["bytes_out"]) == ("quit", 2, 8, 8)


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize(("number", "answer"), [("0", b""), ("1", b"sorry")])
def test_the_answer_of_a_program_that_fails_is_on_error(
    served: Daemon, name: str, number: str, answer: bytes
) -> None:
    """Its status is logged, its output is not sent, and the session goes on."""
    command = name + number
    assert ask(served, f"{command}quit".encode()) == answer + b"quit"
    line = logged(served, command)
    fields = {key: line[key] for key in ("status", "error") if key in line}
    assert fields == FAILURES[name][1]
    assert (line["level"], line["bytes"]) == ("warning", 5)


@pytest.mark.quick
@pytest.mark.parametrize("command", ["hang", "mute"])
def test_a_program_is_killed_at_its_timeout(served: Daemon, command: str) -> None:
    """Also when it has closed its output."""
    assert ask(served, f"{command}quit".encode()) == b"latequit"
    line = logged(served, command)
    assert (line["level"], line["error"]) == ("warning", "timed out")
    assert 0.3 <= line["duration"] < 30
    assert "status" not in line


def test_a_program_that_cannot_be_executed_fails(daemon: MakeDaemon, tmp_path: Path) -> None:
    """The kernel's reason is in the log."""
    program = tmp_path / "program"
    program.write_bytes(b"this is no program\0\n")
    program.chmod(stat.S_IRWXU)
    served = daemon(commands={"prog": {"run": [str(program)], "on_error": "sorry"}})
    assert ask(served) == b"sorryquit"
    line = logged(served)
    assert line["error"] == "cannot start the job: exec format error"
    assert "status" not in line
    program.unlink()
    assert ask(served) == b"sorryquit"
    served.wait_for("client.command", error="cannot start the job: no such file or directory")


@pytest.mark.parametrize("command", ["yes1", "yes2"])
def test_a_long_answer_is_cut(served: Daemon, command: str) -> None:
    """After `max_output` bytes the program is killed, and the log has `cut`."""
    assert ask(served, f"{command}quit".encode()) == b"y\n" * 51200 + b"quit"
    line = logged(served, command)
    assert (line["level"], line["bytes"], line["cut"]) == ("warning", 102400, True)
    assert "error" not in line


def test_an_answer_of_max_output_bytes_is_not_cut(served: Daemon) -> None:
    """The limit is the longest answer that is allowed."""
    assert ask(served, b"headquit") == bytes(300000) + b"quit"
    assert logged(served, "head")["level"] == "info"


def test_standard_error_goes_to_the_log(served: Daemon) -> None:
    """The first 400 bytes of it; the program can write more without being blocked."""
    assert ask(served, b"oopsquit") == b"ok\nquit"
    line = logged(served, "oops")
    assert line["stderr"].startswith(r"oops\n\xff\x00\x00")
    assert len(line["stderr"]) == 400
    assert line["level"] == "info"


def test_a_program_runs_as_the_user_of_the_daemon(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """The handler, which runs as the same user, can kill the program."""
    served = daemon(
        folder=nobodys_folder,
        daemon={"user": "nobody"},
        commands={"prog": shell("sleep 1000 & id -un"), "late": shell("sleep 1000", timeout=0.1)},
    )
    client = served.connect()
    client.send(b"proglate")
    assert client.read(7) == b"nobody\n"
    assert served.wait_for("client.command", command="late")["error"] == "timed out"
    assert children_of(served.handlers[0]) == []


# Its environment


def test_the_environment_is_what_is_documented(served: Daemon) -> None:
    """Nothing of the daemon's environment; `env` adds and overrides."""
    client = served.connect()
    client.send(b"env+quit")
    lines = client.read_all().removesuffix(b"quit").decode().splitlines()
    line = logged(served, "env+")
    assert dict(entry.split("=", 1) for entry in lines) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
        "EMPTY": "",
        "COLOUR": "light red",
        "TETRAD_CLIENT": client.name,
        "TETRAD_CONNECTION": line["connection"],
        "TETRAD_COMMAND": "env+",
    }


def test_no_descriptor_is_inherited(served: Daemon) -> None:
    """It has an empty input and two pipes; the fourth descriptor is that of `ls` itself."""
    found = re.findall(r" (\d+) -> (\S+)", ask(served, b"fds?quit").decode())
    kinds = {int(fd): name.partition(":")[0] for fd, name in found}
    assert kinds.pop(0) == "/dev/null"
    assert (kinds.pop(1), kinds.pop(2)) == ("pipe", "pipe")
    assert [name.rpartition("/")[2] for name in kinds.values()] == ["fd"]


def test_signals_have_their_defaults(served: Daemon) -> None:
    """None is blocked, and none is ignored."""
    blocked, ignored, _ = ask(served, b"sigsquit").decode().split("\n")
    assert blocked.split() == ["SigBlk:", "0" * 16]
    kernels = 3 << 31  # the C library keeps signals 32 and 33 for itself
    assert int(ignored.split()[1], 16) & ~kernels == 0


def test_a_program_leads_a_session(served: Daemon) -> None:
    """And has the usual limit on open files."""
    files, session, pid = ask(served, b"sessquit").decode().removesuffix("quit").split()
    assert int(files) <= 1024
    assert int(session) == int(pid)


def test_the_input_is_empty(served: Daemon) -> None:
    """A program that reads gets the end at once, and nothing of the client's input."""
    assert ask(served, b"cat?quit") == b"quit"
    assert logged(served, "cat?")["status"] == 0


# The session around it


def test_answers_are_in_the_order_of_the_commands(served: Daemon) -> None:
    """Commands before a job do not wait for it, commands behind it do."""
    client = served.connect()
    client.send(b"textslowtexttimequit")
    assert client.read(1) == b"t"
    rest = client.read_all()
    assert rest[:3] == b"x\nt"
    assert ANSWER.fullmatch(rest[3:-4])
    assert rest[-4:] == b"quit"
    assert served.wait_for("client.disconnected")["commands"] == 5
    names = [line["command"] for line in served.events("client.command")]
    assert names == ["text", "slow", "text", "time", "quit"]


def test_a_half_closed_client_gets_its_answers(served: Daemon) -> None:
    """The end of its input is not a disconnect."""
    assert ask(served, b"slowslow") == b"x\nx\n"
    assert served.wait_for("client.disconnected")["reason"] == "eof"


def test_an_invalid_command_behind_a_job_is_logged(served: Daemon) -> None:
    """As behind any command."""
    assert ask(served, b"slow\r\nhelp") == b"x\n"
    served.wait_for("client.invalid", command="help")


def test_the_idle_timeout_does_not_run_during_a_job(daemon: MakeDaemon) -> None:
    """It begins with the answer."""
    served = daemon(
        commands={"prog": shell("sleep 0.6; echo x")},
        session={"idle_timeout": "200ms", "first_command_timeout": "200ms"},
    )
    client = served.connect()
    client.send(b"prog")
    assert client.read_all() == b"x\n"
    end = served.wait_for("client.disconnected")
    assert end["reason"] == "idle_timeout"
    assert end["duration"] >= 0.8


def test_a_reload_changes_the_commands_of_new_sessions(daemon: MakeDaemon) -> None:
    """A session keeps the commands that it began with."""
    served = daemon(commands={"prog": shell("echo old")})
    old = served.served()
    served.configure(commands={"prog": shell("echo new")})
    assert "commands.prog.run" in reload(served)
    assert ask(served) == b"new\nquit"
    old.send(b"progquit")
    assert old.read_all() == b"old\nquit"


def test_a_reload_with_a_missing_program_changes_nothing(served: Daemon) -> None:
    """It fails, and names the key."""
    served.configure(commands={"text": {"run": ["/no/such/program"]}})
    ran = served.tetrad("reload")
    served.configure(commands={"text": COMMANDS["text"]})
    assert (ran.status, "commands.text.run: no such program: /no/such" in ran.err) == (78, True)
    assert ask(served, b"textquit") == b"tquit"


def test_no_program_runs_before_a_client_asks(daemon: MakeDaemon, tmp_path: Path) -> None:
    """Neither in the warm-up of the master, nor in that of spare handlers."""
    file = tmp_path / "file"
    command = shell(f"echo x >> {file}")
    commands = {"quit": None, "prog": command}
    served = daemon(commands=commands, handlers={"spare": 1, "clients_each": 9})
    until(lambda: served.status()["handlers"]["idle"], "a spare")
    assert ask(served, b"prog") == b""
    assert file.read_text() == "x\n"


@pytest.mark.parametrize("number", range(len(TERMINATORS)))
def test_every_answer_has_the_terminator(served: Daemon, number: int) -> None:
    """Of commands and jobs, on both paths; it is not added to an answer that has it already."""
    end, listener = TERMINATORS[number].encode(), 1 + number
    words = f"timeputxlin{number}nonefaillostquit".encode()
    parts = ask(served, words, listener).split(end)
    assert ANSWER.fullmatch(parts[0])
    assert parts[1:] == [b"x", b"x", b"", b"sorry", b"quit", b""]
    served.wait_for("client.disconnected")
    assert ask(served, b"quit", listener) == b"quit" + end
    assert served.wait_for("client.disconnected", count=2)["bytes_out"] == 4 + len(end)
    assert ask(served, b"putxquit") == b"xquit"


def test_the_echo_service_has_no_terminator(prepared: MakeDaemon) -> None:
    """Every byte comes back unchanged, so the key is an error there."""
    made = prepared(listen=[{"port": 0, "service": "echo", "reply_terminator": "\n"}])
    ran = made.tetrad("check")
    assert ran.status == 78
    assert re.search(
        r":\d+:\d+: listen\[0\].reply_terminator: the echo service only sends", ran.err
    )


@pytest.mark.parametrize("listener", range(3), ids=["no terminator", "\\n", "\\r\\n"])
def test_tetrad_client_prints_an_answer_in_a_line(served: Daemon, listener: int) -> None:
    """Whether the answer has a terminator or not."""
    ran = served.tetrad("client", "--port", str(served.ports[listener]), "putx", "quit")
    assert (ran.status, ran.out) == (0, "x\nquit\n")
