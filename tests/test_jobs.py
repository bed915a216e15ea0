"""`run` commands: the program's answer and end, and that no process of it remains."""

from __future__ import annotations

import os
import re
import signal
import stat
from typing import TYPE_CHECKING, Any

import pytest

from clients import ANSWER
from processes import Process, children_of, stopped, title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clients import Client
    from conftest import MakeDaemon
    from daemons import Daemon, Event

LONG = "1000"

WAIT = "until test -e go; do sleep 0.01; done"

STUBBORN = """
(setsid sh -c 'trap "" TERM INT HUP; sleep 1000 & echo $$ $! > far.new; mv far.new far; wait' &)
trap "" TERM INT HUP
echo $$ > near.new; mv near.new near
"""
"""A program that ignores signals and has started another one in a session of its own."""


def shell(script: str, **settings: object) -> dict[str, Any]:
    """Return a command that runs a shell script."""
    return {"run": ["sh", "-c", script], **settings}


def command_event(daemon: Daemon, command: str = "prog") -> Event:
    """Wait for the log line of a command, which is logged once."""
    return daemon.wait_for("client.command", command=command)


def ask(daemon: Daemon, words: bytes = b"progquit", listener: int = 0) -> bytes:
    """Send bytes, and return all answers."""
    client = daemon.connect(listener)
    client.send(words)
    client.half_close()
    return client.read_all()


class Stubborn:
    """A running STUBBORN: the pids of its two processes, and the second one's child."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = f"cd {folder}\n{STUBBORN}"
        self._processes: list[Process] = []

    def watch(self) -> None:
        """Wait until all its processes run."""
        pids = [*self._note("near"), *self._note("far")]
        self._processes = [Process(int(pid)) for pid in pids]

    @property
    def main(self) -> Process:
        """The program itself."""
        return self._processes[0]

    def _note(self, name: str) -> list[str]:
        file = self.folder / name
        until(file.exists, f"the note {name}")
        return file.read_text().split()

    def release(self) -> None:
        """Let a program continue that waits for the test."""
        (self.folder / "go").touch()

    def is_gone(self) -> bool:
        """Wait for the end of all its processes."""
        return all(process.has_ended() for process in self._processes)

    def close(self) -> None:
        """Kill all its processes."""
        for process in self._processes:
            process.signal(signal.SIGKILL)
            process.close()


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[Stubborn]:
    """Return a program that is hard to kill."""
    folder = tmp_path / "stubborn"
    folder.mkdir()
    one = Stubborn(folder)
    yield one
    one.close()


# The answer


def test_the_answer_is_the_programs_standard_output(daemon: MakeDaemon) -> None:
    """It is sent unchanged, and logged with exit status, duration and bytes."""
    served = daemon(commands={"prog": shell("printf 'a\\0b\\n'")})
    assert ask(served) == b"a\0b\nquit"
    line = command_event(served)
    assert (line["level"], line["status"], line["bytes"]) == ("info", 0, 4)
    assert 0 < line["duration"] < 30
    assert line.keys().isdisjoint({"error", "stderr", "cut"})
    end = served.wait_for("client.disconnected")
    assert (end["reason"], end["commands"], end["bytes_in"], end["bytes_out"]) == ("quit", 2, 8, 8)


@pytest.mark.parametrize(
    ("script", "fields"),
    [
        ("echo lost; exit 3", {"status": 3, "error": "exit status 3"}),
        ("echo lost; kill -SEGV $$", {"error": "killed by SIGSEGV"}),
        ("echo lost; kill -KILL $$", {"error": "killed by SIGKILL"}),
        ("echo lost; exec >&- 2>&-; exit 4", {"status": 4, "error": "exit status 4"}),
    ],
)
@pytest.mark.parametrize(("on_error", "answer"), [(None, b""), ("sorry", b"sorry")])
def test_a_failed_program_is_answered_with_on_error(
    daemon: MakeDaemon, script: str, fields: Event, on_error: str | None, answer: bytes
) -> None:
    """Its exit status is logged, its output is not sent, and the session continues."""
    served = daemon(commands={"prog": shell(script, on_error=on_error)})
    assert ask(served) == answer + b"quit"
    line = command_event(served)
    assert {key: line[key] for key in ("status", "error") if key in line} == fields
    assert (line["level"], line["bytes"]) == ("warning", 5)


@pytest.mark.parametrize("closing", ["", "exec >&- 2>&-; "])
def test_a_program_beyond_its_timeout_is_killed(daemon: MakeDaemon, closing: str) -> None:
    """Even if it has closed its output."""
    script = f"echo lost; {closing}exec sleep {LONG}"
    served = daemon(commands={"prog": shell(script, timeout="300ms", on_error="late")})
    assert ask(served) == b"latequit"
    line = command_event(served)
    assert (line["level"], line["error"]) == ("warning", "timed out")
    assert 0.3 <= line["duration"] < 30
    assert "status" not in line


def test_a_failed_exec_is_logged(daemon: MakeDaemon, tmp_path: Path) -> None:
    """With the kernel's error message."""
    program = tmp_path / "program"
    program.write_text("this is no program\n")
    program.chmod(stat.S_IRWXU)
    served = daemon(commands={"prog": {"run": [str(program)], "on_error": "sorry"}})
    assert ask(served) == b"sorryquit"
    line = command_event(served)
    assert line["error"] == "it cannot be started: exec format error"
    assert "status" not in line
    program.unlink()
    assert ask(served) == b"sorryquit"
    served.wait_for("client.command", error="it cannot be started: no such file or directory")


@pytest.mark.parametrize("command", [["yes"], ["sh", "-c", "yes; sleep 1000"]])
def test_a_too_long_answer_is_cut(daemon: MakeDaemon, command: list[str]) -> None:
    """The first bytes are answered, the program is killed at once, and the log says so."""
    served = daemon(commands={"prog": {"run": command, "max_output": "100KiB", "timeout": "1h"}})
    assert ask(served) == b"y\n" * 51200 + b"quit"
    line = command_event(served)
    assert (line["level"], line["bytes"], line["cut"]) == ("warning", 102400, True)
    assert "error" not in line


def test_an_answer_of_the_maximum_length_is_sent(daemon: MakeDaemon) -> None:
    """The limit itself is allowed."""
    script = "head -c 300000 /dev/zero"
    served = daemon(commands={"prog": shell(script, max_output=300000)})
    assert ask(served) == bytes(300000) + b"quit"
    assert command_event(served)["level"] == "info"


def test_standard_error_is_logged(daemon: MakeDaemon) -> None:
    """Its beginning only; more output does not block the program."""
    script = "printf 'oops\\n\\377' >&2; head -c 1000000 /dev/zero >&2; echo ok"
    served = daemon(commands={"prog": shell(script)})
    assert ask(served) == b"ok\nquit"
    line = command_event(served)
    assert line["stderr"].startswith(r"oops\n\xff\x00\x00")
    assert len(line["stderr"]) == 400
    assert line["level"] == "info"


def test_a_program_runs_as_the_daemons_user(daemon: MakeDaemon, nobodys_folder: str) -> None:
    """That user can also kill all its processes."""
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


# The program's environment


def test_the_environment_is_what_is_documented(daemon: MakeDaemon) -> None:
    """No variable of the daemon; `env` adds and replaces variables."""
    command = {"run": ["env"], "env": {"LANG": "C", "EMPTY": "", "COLOUR": "light red"}}
    served = daemon(commands={"prog": command})
    client = served.connect()
    client.send(b"progquit")
    lines = client.read_all().removesuffix(b"quit").decode().splitlines()
    line = command_event(served)
    assert dict(entry.split("=", 1) for entry in lines) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
        "EMPTY": "",
        "COLOUR": "light red",
        "TETRAD_CLIENT": client.name,
        "TETRAD_CONNECTION": line["connection"],
        "TETRAD_COMMAND": "prog",
    }


def test_no_descriptor_is_inherited(daemon: MakeDaemon) -> None:
    """Only standard input, output and error; `ls` itself opens a fourth."""
    served = daemon(commands={"prog": {"run": ["ls", "-l", "/proc/self/fd"]}})
    found = re.findall(r" (\d+) -> (\S+)", ask(served).decode())
    kinds = {int(fd): name.partition(":")[0] for fd, name in found}
    assert kinds.pop(0) == "/dev/null"
    assert (kinds.pop(1), kinds.pop(2)) == ("pipe", "pipe")
    assert [name.rpartition("/")[2] for name in kinds.values()] == ["fd"]


def test_no_signal_is_blocked_or_ignored(daemon: MakeDaemon) -> None:
    """Programs start with default signal handling."""
    served = daemon(commands={"prog": {"run": ["grep", "Sig[BI]", "/proc/self/status"]}})
    blocked, ignored, _ = ask(served).decode().split("\n")
    assert blocked.split() == ["SigBlk:", "0" * 16]
    kernels = 3 << 31  # the C library keeps signals 32 and 33 for itself
    assert int(ignored.split()[1], 16) & ~kernels == 0


def test_a_program_leads_a_session(daemon: MakeDaemon) -> None:
    """Its resource limits are the usual ones."""
    served = daemon(commands={"prog": shell("ulimit -Sn; ps -o sid= -p $$; echo $$")})
    files, session, pid = ask(served).decode().removesuffix("quit").split()
    assert int(files) <= 1024
    assert int(session) == int(pid)


def test_the_input_is_empty(daemon: MakeDaemon) -> None:
    """A program that reads gets end of file, and nothing of the client."""
    served = daemon(commands={"prog": {"run": ["cat"], "timeout": "1h"}})
    assert ask(served, b"progquit") == b"quit"
    assert command_event(served)["status"] == 0


# Programs and the session


def test_answers_are_in_the_order_of_commands(daemon: MakeDaemon) -> None:
    """Commands before a program are answered at once, those after it wait."""
    served = daemon(commands={"prog": shell("sleep 0.2; echo x"), "text": {"text": "t"}})
    client = served.connect()
    client.send(b"textprogtexttimequit")
    assert client.read(1) == b"t"
    rest = client.read_all()
    assert rest[:3] == b"x\nt"
    assert ANSWER.fullmatch(rest[3:-4])
    assert rest[-4:] == b"quit"
    assert served.wait_for("client.disconnected")["commands"] == 5
    names = [line["command"] for line in served.events("client.command")]
    assert names == ["text", "prog", "text", "time", "quit"]


def test_a_half_closed_client_gets_its_answers(daemon: MakeDaemon) -> None:
    """A client that sends no more has not necessarily left."""
    served = daemon(commands={"prog": shell("sleep 0.3; echo x")})
    assert ask(served, b"progprog") == b"x\nx\n"
    assert served.wait_for("client.disconnected")["reason"] == "eof"


def test_an_invalid_command_after_a_program_is_logged(daemon: MakeDaemon) -> None:
    """The rules of the protocol apply as for any command."""
    served = daemon(commands={"prog": shell("echo x")})
    assert ask(served, b"prog\r\nhelp") == b"x\n"
    served.wait_for("client.invalid", command="help")


def test_idle_timeout_does_not_run_during_a_program(daemon: MakeDaemon) -> None:
    """It starts when the answer has been sent."""
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


def test_a_reload_applies_to_new_sessions(daemon: MakeDaemon) -> None:
    """An open session keeps its commands."""
    served = daemon(commands={"prog": shell("echo old")})
    old = served.served()
    served.configure(commands={"prog": shell("echo new")})
    ran = served.tetrad("reload")
    assert "commands.prog.run" in ran.out
    assert ask(served) == b"new\nquit"
    old.send(b"progquit")
    assert old.read_all() == b"old\nquit"


def test_a_reload_with_a_missing_program_fails(daemon: MakeDaemon) -> None:
    """The error has the position, and nothing changes."""
    served = daemon(commands={"prog": shell("echo old")})
    served.configure(commands={"prog": {"run": ["/no/such/program"]}})
    ran = served.tetrad("reload")
    assert (ran.status, "commands.prog.run: no such program: /no/such" in ran.err) == (78, True)
    assert ask(served) == b"old\nquit"


def test_no_program_runs_without_a_request(daemon: MakeDaemon, tmp_path: Path) -> None:
    """Neither the warm-up nor spare handlers run programs."""
    note = tmp_path / "note"
    command = shell(f"echo x >> {note}")
    commands = {"quit": None, "prog": command}
    served = daemon(commands=commands, handlers={"spare": 1, "clients_each": 9})
    until(lambda: served.status()["handlers"]["idle"], "a spare")
    assert ask(served, b"prog") == b""
    assert note.read_text() == "x\n"


@pytest.mark.parametrize("terminator", ["\n", "\r\n", "|", "\0"])
def test_every_answer_has_the_terminator(daemon: MakeDaemon, terminator: str) -> None:
    """Immediate and delayed answers do; it is not added twice."""
    served = daemon(
        listen=[{"port": 0, "reply_terminator": terminator}, {"port": 0}],
        commands={
            "prog": shell("printf x"),
            "line": {"run": ["printf", "%b", "x" + terminator.replace("\0", "\\0000")]},
            "none": {"run": ["true"]},
            "fail": {"run": ["false"], "on_error": "sorry"},
            "lost": {"run": ["false"]},
        },
    )
    end = terminator.encode()
    parts = ask(served, b"timeproglinenonefaillostquit").split(end)
    assert ANSWER.fullmatch(parts[0])
    assert parts[1:] == [b"x", b"x", b"", b"sorry", b"quit", b""]
    served.wait_for("client.disconnected")
    assert ask(served, b"quit") == b"quit" + end
    assert served.wait_for("client.disconnected", count=2)["bytes_out"] == 4 + len(end)
    assert ask(served, b"progquit", 1) == b"xquit"


def test_the_echo_service_has_no_terminator(prepared: MakeDaemon) -> None:
    """Every byte comes back unchanged, so the key is refused there."""
    made = prepared(listen=[{"port": 0, "service": "echo", "reply_terminator": "\n"}])
    ran = made.tetrad("check")
    assert ran.status == 78
    assert re.search(
        r":\d+:\d+: listen\[0\].reply_terminator: the echo service only sends", ran.err
    )


@pytest.mark.parametrize("terminator", ["", "\n", "\r\n"])
def test_the_client_prints_one_line_per_answer(daemon: MakeDaemon, terminator: str) -> None:
    """Whether the answer has a terminator or not."""
    served = daemon(
        listen=[{"port": 0, "reply_terminator": terminator}], commands={"prog": shell("printf x")}
    )
    ran = served.tetrad("client", "--port", str(served.port), "prog", "quit")
    assert (ran.status, ran.out) == (0, "x\nquit\n")


# The program's end


@pytest.fixture
def running(daemon: MakeDaemon, stubborn: Stubborn) -> tuple[Daemon, Client]:
    """Return a daemon, and a client that waits for a stubborn program."""
    served = daemon(
        commands={"prog": shell(f"{stubborn.script}sleep 1000", timeout="1h")},
        daemon={"stop_timeout": "300ms"},
    )
    client = served.connect()
    client.send(b"prog")
    stubborn.watch()
    return served, client


@pytest.mark.parametrize(
    ("script", "settings", "error"),
    [
        ("sleep 1000", {"timeout": "2s"}, "timed out"),
        (f"{WAIT}; exit 3", {}, "exit status 3"),
        (WAIT, {}, None),
        (f"{WAIT}; yes", {"max_output": 10}, None),
    ],
)
def test_nothing_outlives_its_command(
    daemon: MakeDaemon, stubborn: Stubborn, script: str, settings: Event, error: str | None
) -> None:
    """When a program ends, so do its child processes, in whatever session they are."""
    command = shell(stubborn.script + script, **{"timeout": "1h", **settings})
    served = daemon(commands={"prog": command})
    client = served.connect()
    client.send(b"prog")
    stubborn.watch()
    stubborn.release()
    assert command_event(served).get("error") == error
    assert stubborn.is_gone()
    assert client.quit().endswith(b"quit")


def test_a_program_ends_with_its_client(running: tuple[Daemon, Client], stubborn: Stubborn) -> None:
    """A reset of the connection is noticed while the program runs."""
    served, client = running
    client.reset()
    assert stubborn.is_gone()
    assert command_event(served)["error"] == "the client has left"
    end = served.wait_for("client.disconnected")
    assert (end["reason"], end["commands"]) == ("reset", 1)


def test_a_program_ends_with_a_client_of_a_unix_socket(
    daemon: MakeDaemon, stubborn: Stubborn
) -> None:
    """Closing a Unix socket is noticed as well."""
    command = shell(f"{stubborn.script}sleep 1000", timeout="1h")
    served = daemon(listen=[{"address": "unix:t.sock"}], commands={"prog": command})
    client = served.connect_to_path("t.sock")
    client.send(b"prog")
    stubborn.watch()
    client.close()
    assert stubborn.is_gone()
    assert command_event(served)["error"] == "the client has left"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_program_ends_with_the_daemon(
    running: tuple[Daemon, Client], stubborn: Stubborn, number: int
) -> None:
    """It has `stop_timeout`, or no time after SIGQUIT."""
    served, client = running
    served.signal(number)
    assert served.is_gone()
    assert stubborn.is_gone()
    assert client.read_all() == b""
    assert command_event(served)["error"] == "the session has ended: stopping"
    assert served.events("client.disconnected")[0]["commands"] == 1


def test_a_stop_waits_for_a_program(daemon: MakeDaemon, tmp_path: Path) -> None:
    """A running command is finished and answered."""
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
    assert command_event(served)["status"] == 0


def test_max_duration_ends_a_program(daemon: MakeDaemon, stubborn: Stubborn) -> None:
    """The session ends although a program runs."""
    command = shell(f"{stubborn.script}sleep 1000", timeout="1h")
    served = daemon(commands={"prog": command}, session={"max_duration": "2s"})
    client = served.connect()
    client.send(b"prog")
    stubborn.watch()
    assert client.read_all() == b""
    assert stubborn.is_gone()
    assert command_event(served)["error"] == "the session has ended: max_duration"
    assert served.wait_for("client.disconnected")["reason"] == "max_duration"


def test_a_program_ends_with_its_handler(
    running: tuple[Daemon, Client], stubborn: Stubborn
) -> None:
    """Also when the handler is killed and cannot end it."""
    served, _ = running
    served.allow_lost_handlers = True
    os.kill(served.handlers[0], signal.SIGKILL)
    assert stubborn.is_gone()


def test_a_program_ends_with_the_master(running: tuple[Daemon, Client], stubborn: Stubborn) -> None:
    """When the master is killed, handlers and programs end."""
    served, _ = running
    served.signal(signal.SIGKILL)
    assert stubborn.is_gone()


def test_a_program_ends_with_its_supervisor(
    running: tuple[Daemon, Client], stubborn: Stubborn
) -> None:
    """If the job supervisor is killed, the handler kills the program and continues."""
    served, client = running
    (supervisor,) = children_of(served.handlers[0])
    assert title_of(supervisor).startswith(f"tetrad: keeper of prog for {client.name}")
    os.kill(supervisor, signal.SIGKILL)
    assert stubborn.is_gone()
    assert command_event(served)["error"] == "its keeper was killed"
    assert ANSWER.fullmatch(client.ask())
    assert children_of(served.handlers[0]) == []


def test_a_program_ends_with_its_supervisor_at_once(
    running: tuple[Daemon, Client], stubborn: Stubborn
) -> None:
    """The kernel sends the parent-death signal."""
    served, _ = running
    (supervisor,) = children_of(served.handlers[0])
    with stopped(served.handlers[0]):
        os.kill(supervisor, signal.SIGKILL)
        assert stubborn.main.has_ended()
    assert stubborn.is_gone()


def test_a_handler_has_no_zombies(daemon: MakeDaemon) -> None:
    """A handler of many clients has reaped all their programs."""
    commands = {"prog": shell("sleep 0.01 & echo x"), "late": shell("sleep 1000", timeout="50ms")}
    served = daemon(commands=commands, handlers={"clients_each": 1000})
    for _ in range(5):
        assert ask(served, b"proglateprogquit") == b"x\nx\nquit"
    served.wait_for("client.disconnected", count=5)
    assert [pid for handler in served.handlers for pid in children_of(handler)] == []


@pytest.mark.parametrize("handlers", [{}, {"clients_each": 1000, "spare": 2}])
def test_many_clients_run_programs_at_once(daemon: MakeDaemon, handlers: Event) -> None:
    """Each client gets its own answer, and no process is left."""
    script = "sleep 1000 & echo $TETRAD_CLIENT"
    served = daemon(commands={"prog": shell(script, timeout="1h")}, handlers=handlers)
    clients = [served.connect() for _ in range(32)]
    for client in clients:
        client.send(b"progquit")
    for client in clients:
        assert client.read_all() == f"{client.name}\nquit".encode()
    served.wait_for("client.disconnected", count=32)
    assert [pid for handler in served.handlers for pid in children_of(handler)] == []


def test_a_start_runs_no_program(daemon: MakeDaemon, tmp_path: Path) -> None:
    """The warm-up has no side effect, even if `time` and `quit` are programs."""
    ran = tmp_path / "ran"
    commands = {"time": {"run": ["touch", str(ran)]}, "quit": {"run": ["touch", str(ran)]}}
    served = daemon(commands=commands, handlers={"spare": 1})
    until(lambda: served.status()["handlers"]["idle"] == 1, "a spare")
    assert not ran.exists()
    client = served.connect()
    client.send(b"time")
    until(ran.exists, "the program")


def test_input_during_a_program_is_kept(daemon: MakeDaemon, tmp_path: Path) -> None:
    """An invalid command discards what had arrived with it, and no later input."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    served = daemon(commands={"load": {"run": ["cat", str(gate)]}})
    client = served.connect()
    client.send(b"loadhelp me")
    writer = os.open(gate, os.O_WRONLY)  # which waits for the program
    client.send(b"quit")
    os.write(writer, b"hello")
    os.close(writer)
    assert client.read_all() == b"helloquit"
    assert served.wait_for("client.invalid")["command"] == "help"


def test_orphans_of_a_program_are_reaped(daemon: MakeDaemon, tmp_path: Path) -> None:
    """Orphans that end while it runs do not accumulate."""
    script = f"for n in 1 2 3; do (true &); done; cd {tmp_path}; touch ready; {WAIT}; echo done"
    served = daemon(commands={"prog": shell(script)})
    client = served.connect()
    client.send(b"progquit")
    until((tmp_path / "ready").exists, "the program")
    (supervisor,) = children_of(served.handlers[0])
    until(lambda: len(children_of(supervisor)) == 1, "all other processes to end")
    (tmp_path / "go").touch()
    assert client.read_all() == b"done\nquit"
