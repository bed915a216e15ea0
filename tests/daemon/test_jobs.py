"""Commands that run a program: its answer, its environment, and the end of all its processes."""

from __future__ import annotations

import os
import re
import signal
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import Process, children_of, stopped, title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event
    from tests.support.fixtures import MakeDaemon

LONG = "1000"

WAIT = "until test -e go; do sleep 0.01; done"

STUBBORN = """
(setsid sh -c 'trap "" TERM INT HUP; sleep 1000 & echo $$ $! > far.new; mv far.new far; wait' &)
trap "" TERM INT HUP
echo $$ > near.new; mv near.new near
"""
"""A program that ignores signals, and leaves another one in a session of its own, as orphans."""


def shell(script: str, **settings: object) -> dict[str, Any]:
    """Return a command that runs a script."""
    return {"run": ["sh", "-c", script], **settings}


def logged(daemon: Daemon, command: str = "prog") -> Event:
    """Wait for the log line of a command."""
    return daemon.wait_for("client.command", command=command)


def ask(daemon: Daemon, words: bytes = b"progquit", listener: int = 0) -> bytes:
    """Send commands, and return all answers."""
    client = daemon.connect(listener)
    client.send(words)
    client.half_close()
    return client.read_all()


class Stubborn:
    """The processes of a stubborn program: two that write their pids, and a child of the second."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = f"cd {folder}\n{STUBBORN}"
        self._processes: list[Process] = []

    def watch(self) -> None:
        """Wait until all of them run."""
        pids = [*self._pids("near"), *self._pids("far")]
        self._processes = [Process(int(pid)) for pid in pids]

    @property
    def main(self) -> Process:
        """The program itself."""
        return self._processes[0]

    def _pids(self, name: str) -> list[str]:
        file = self.folder / name
        until(file.exists, f"the file {name}")
        return file.read_text().split()

    def release(self) -> None:
        """Let a program continue that waits for the file `go`."""
        (self.folder / "go").touch()

    def is_gone(self) -> bool:
        """Wait until all of them have ended."""
        return all(process.has_ended() for process in self._processes)

    def close(self) -> None:
        """Kill what is left."""
        for process in self._processes:
            process.signal(signal.SIGKILL)
            process.close()


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[Stubborn]:
    """A program that is hard to kill."""
    folder = tmp_path / "stubborn"
    folder.mkdir()
    one = Stubborn(folder)
    yield one
    one.close()


# Its answer


def test_the_answer_is_the_output_of_the_program(daemon: MakeDaemon) -> None:
    """Its standard output unchanged; the log has status, duration and bytes."""
    served = daemon(commands={"prog": shell("printf 'a\\0b\\n'")})
    assert ask(served) == b"a\0b\nquit"
    line = logged(served)
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
def test_the_answer_of_a_program_that_fails_is_on_error(
    daemon: MakeDaemon, script: str, fields: Event, on_error: str | None, answer: bytes
) -> None:
    """Its status is logged, its output is not sent, and the session goes on."""
    served = daemon(commands={"prog": shell(script, on_error=on_error)})
    assert ask(served) == answer + b"quit"
    line = logged(served)
    assert {key: line[key] for key in ("status", "error") if key in line} == fields
    assert (line["level"], line["bytes"]) == ("warning", 5)


@pytest.mark.parametrize("closing", ["", "exec >&- 2>&-; "])
def test_a_program_is_killed_at_its_timeout(daemon: MakeDaemon, closing: str) -> None:
    """Also when it has closed its output."""
    script = f"echo lost; {closing}exec sleep {LONG}"
    served = daemon(commands={"prog": shell(script, timeout="300ms", on_error="late")})
    assert ask(served) == b"latequit"
    line = logged(served)
    assert (line["level"], line["error"]) == ("warning", "timed out")
    assert 0.3 <= line["duration"] < 30
    assert "status" not in line


def test_a_program_that_cannot_be_executed_fails(daemon: MakeDaemon, tmp_path: Path) -> None:
    """The kernel's reason is in the log."""
    program = tmp_path / "program"
    program.write_text("this is no program\n")
    program.chmod(stat.S_IRWXU)
    served = daemon(commands={"prog": {"run": [str(program)], "on_error": "sorry"}})
    assert ask(served) == b"sorryquit"
    line = logged(served)
    assert line["error"] == "cannot start the job: exec format error"
    assert "status" not in line
    program.unlink()
    assert ask(served) == b"sorryquit"
    served.wait_for("client.command", error="cannot start the job: no such file or directory")


@pytest.mark.parametrize("command", [["yes"], ["sh", "-c", "yes; sleep 1000"]])
def test_a_long_answer_is_cut(daemon: MakeDaemon, command: list[str]) -> None:
    """After `max_output` bytes the program is killed, and the log has `cut`."""
    served = daemon(commands={"prog": {"run": command, "max_output": "100KiB", "timeout": "1h"}})
    assert ask(served) == b"y\n" * 51200 + b"quit"
    line = logged(served)
    assert (line["level"], line["bytes"], line["cut"]) == ("warning", 102400, True)
    assert "error" not in line


def test_an_answer_of_max_output_bytes_is_not_cut(daemon: MakeDaemon) -> None:
    """The limit is the longest answer that is allowed."""
    script = "head -c 300000 /dev/zero"
    served = daemon(commands={"prog": shell(script, max_output=300000)})
    assert ask(served) == bytes(300000) + b"quit"
    assert logged(served)["level"] == "info"


def test_standard_error_goes_to_the_log(daemon: MakeDaemon) -> None:
    """The first 400 bytes of it; the program can write more without being blocked."""
    script = "printf 'oops\\n\\377' >&2; head -c 1000000 /dev/zero >&2; echo ok"
    served = daemon(commands={"prog": shell(script)})
    assert ask(served) == b"ok\nquit"
    line = logged(served)
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


def test_the_environment_is_what_is_documented(daemon: MakeDaemon) -> None:
    """Nothing of the daemon's environment; `env` adds and overrides."""
    command = {"run": ["env"], "env": {"LANG": "C", "EMPTY": "", "COLOUR": "light red"}}
    served = daemon(commands={"prog": command})
    client = served.connect()
    client.send(b"progquit")
    lines = client.read_all().removesuffix(b"quit").decode().splitlines()
    line = logged(served)
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
    """It has an empty input and two pipes; the fourth descriptor is that of `ls` itself."""
    served = daemon(commands={"prog": {"run": ["ls", "-l", "/proc/self/fd"]}})
    found = re.findall(r" (\d+) -> (\S+)", ask(served).decode())
    kinds = {int(fd): name.partition(":")[0] for fd, name in found}
    assert kinds.pop(0) == "/dev/null"
    assert (kinds.pop(1), kinds.pop(2)) == ("pipe", "pipe")
    assert [name.rpartition("/")[2] for name in kinds.values()] == ["fd"]


def test_signals_have_their_defaults(daemon: MakeDaemon) -> None:
    """None is blocked, and none is ignored."""
    served = daemon(commands={"prog": {"run": ["grep", "Sig[BI]", "/proc/self/status"]}})
    blocked, ignored, _ = ask(served).decode().split("\n")
    assert blocked.split() == ["SigBlk:", "0" * 16]
    kernels = 3 << 31  # the C library keeps signals 32 and 33 for itself
    assert int(ignored.split()[1], 16) & ~kernels == 0


def test_a_program_leads_a_session(daemon: MakeDaemon) -> None:
    """And has the usual limit on open files."""
    served = daemon(commands={"prog": shell("ulimit -Sn; ps -o sid= -p $$; echo $$")})
    files, session, pid = ask(served).decode().removesuffix("quit").split()
    assert int(files) <= 1024
    assert int(session) == int(pid)


def test_the_input_is_empty(daemon: MakeDaemon) -> None:
    """A program that reads gets the end at once, and nothing of the client's input."""
    served = daemon(commands={"prog": {"run": ["cat"], "timeout": "1h"}})
    assert ask(served, b"progquit") == b"quit"
    assert logged(served)["status"] == 0


# The session around it


def test_answers_are_in_the_order_of_the_commands(daemon: MakeDaemon) -> None:
    """Commands before a job do not wait for it, commands behind it do."""
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
    """The end of its input is not a disconnect."""
    served = daemon(commands={"prog": shell("sleep 0.3; echo x")})
    assert ask(served, b"progprog") == b"x\nx\n"
    assert served.wait_for("client.disconnected")["reason"] == "eof"


def test_an_invalid_command_behind_a_job_is_logged(daemon: MakeDaemon) -> None:
    """As behind any command."""
    served = daemon(commands={"prog": shell("echo x")})
    assert ask(served, b"prog\r\nhelp") == b"x\n"
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
    ran = served.tetrad("reload")
    assert "commands.prog.run" in ran.out
    assert ask(served) == b"new\nquit"
    old.send(b"progquit")
    assert old.read_all() == b"old\nquit"


def test_a_reload_with_a_missing_program_changes_nothing(daemon: MakeDaemon) -> None:
    """It fails, and names the key."""
    served = daemon(commands={"prog": shell("echo old")})
    served.configure(commands={"prog": {"run": ["/no/such/program"]}})
    ran = served.tetrad("reload")
    assert (ran.status, "commands.prog.run: no such program: /no/such" in ran.err) == (78, True)
    assert ask(served) == b"old\nquit"


def test_no_program_runs_before_a_client_asks(daemon: MakeDaemon, tmp_path: Path) -> None:
    """Neither in the warm-up of the master, nor in that of spare handlers."""
    file = tmp_path / "file"
    command = shell(f"echo x >> {file}")
    commands = {"quit": None, "prog": command}
    served = daemon(commands=commands, handlers={"spare": 1, "clients_each": 9})
    until(lambda: served.status()["handlers"]["idle"], "a spare")
    assert ask(served, b"prog") == b""
    assert file.read_text() == "x\n"


@pytest.mark.parametrize("terminator", ["\n", "\r\n", "|", "\0"])
def test_every_answer_has_the_terminator(daemon: MakeDaemon, terminator: str) -> None:
    """Of commands and jobs, on both paths; it is not added to an answer that has it already."""
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
    """Every byte comes back unchanged, so the key is an error there."""
    made = prepared(listen=[{"port": 0, "service": "echo", "reply_terminator": "\n"}])
    ran = made.tetrad("check")
    assert ran.status == 78
    assert re.search(
        r":\d+:\d+: listen\[0\].reply_terminator: the echo service only sends", ran.err
    )


@pytest.mark.parametrize("terminator", ["", "\n", "\r\n"])
def test_tetrad_client_prints_an_answer_in_a_line(daemon: MakeDaemon, terminator: str) -> None:
    """Whether the answer has a terminator or not."""
    served = daemon(
        listen=[{"port": 0, "reply_terminator": terminator}], commands={"prog": shell("printf x")}
    )
    ran = served.tetrad("client", "--port", str(served.port), "prog", "quit")
    assert (ran.status, ran.out) == (0, "x\nquit\n")


# Its end


@pytest.fixture
def running(daemon: MakeDaemon, stubborn: Stubborn) -> tuple[Daemon, Client]:
    """A daemon, and a client that waits for a stubborn program."""
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
def test_no_process_outlives_its_command(
    daemon: MakeDaemon, stubborn: Stubborn, script: str, settings: Event, error: str | None
) -> None:
    """However a program ends, the processes that it started are killed, in whichever session."""
    command = shell(stubborn.script + script, **{"timeout": "1h", **settings})
    served = daemon(commands={"prog": command})
    client = served.connect()
    client.send(b"prog")
    stubborn.watch()
    stubborn.release()
    assert logged(served).get("error") == error
    assert stubborn.is_gone()
    assert client.quit().endswith(b"quit")


def test_a_program_ends_with_its_client(running: tuple[Daemon, Client], stubborn: Stubborn) -> None:
    """A reset is noticed while the program runs."""
    served, client = running
    client.reset()
    assert stubborn.is_gone()
    assert logged(served)["error"] == "the client disconnected"
    end = served.wait_for("client.disconnected")
    assert (end["reason"], end["commands"]) == ("reset", 1)


def test_a_program_ends_with_a_client_of_a_unix_socket(
    daemon: MakeDaemon, stubborn: Stubborn
) -> None:
    """There, a close ends both directions."""
    command = shell(f"{stubborn.script}sleep 1000", timeout="1h")
    served = daemon(listen=[{"address": "unix:t.sock"}], commands={"prog": command})
    client = served.connect_to_path("t.sock")
    client.send(b"prog")
    stubborn.watch()
    client.close()
    assert stubborn.is_gone()
    assert logged(served)["error"] == "the client disconnected"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_program_ends_with_the_daemon(
    running: tuple[Daemon, Client], stubborn: Stubborn, number: int
) -> None:
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


def test_a_program_ends_with_its_handler(
    running: tuple[Daemon, Client], stubborn: Stubborn
) -> None:
    """Also when the handler is killed."""
    served, _ = running
    served.allow_lost_handlers = True
    os.kill(served.handlers[0], signal.SIGKILL)
    assert stubborn.is_gone()


def test_a_program_ends_with_the_master(running: tuple[Daemon, Client], stubborn: Stubborn) -> None:
    """Its handlers exit, and kill their jobs."""
    served, _ = running
    served.signal(signal.SIGKILL)
    assert stubborn.is_gone()


def test_a_program_ends_with_its_supervisor(
    running: tuple[Daemon, Client], stubborn: Stubborn
) -> None:
    """The handler kills what is left, and the session goes on."""
    served, client = running
    (supervisor,) = children_of(served.handlers[0])
    assert title_of(supervisor) == f"tetrad: job supervisor: prog, client {client.name}"
    os.kill(supervisor, signal.SIGKILL)
    assert stubborn.is_gone()
    assert logged(served)["error"] == "the job supervisor was killed"
    assert ANSWER.fullmatch(client.ask())
    assert children_of(served.handlers[0]) == []


def test_the_kernel_kills_a_program_with_its_supervisor(
    running: tuple[Daemon, Client], stubborn: Stubborn
) -> None:
    """At once, also while the handler is stopped."""
    served, _ = running
    (supervisor,) = children_of(served.handlers[0])
    with stopped(served.handlers[0]):
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


@pytest.mark.parametrize("handlers", [{}, {"clients_each": 1000, "spare": 2}])
def test_many_clients_run_programs_at_once(daemon: MakeDaemon, handlers: Event) -> None:
    """Each gets its own answer, and no process is left."""
    script = "sleep 1000 & echo $TETRAD_CLIENT"
    served = daemon(commands={"prog": shell(script, timeout="1h")}, handlers=handlers)
    clients = [served.connect() for _ in range(32)]
    for client in clients:
        client.send(b"progquit")
    for client in clients:
        assert client.read_all() == f"{client.name}\nquit".encode()
    served.wait_for("client.disconnected", count=32)
    assert [pid for handler in served.handlers for pid in children_of(handler)] == []


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


def test_input_that_arrives_during_a_job_is_kept(daemon: MakeDaemon, tmp_path: Path) -> None:
    """An invalid command discards what had arrived with it, and nothing that arrives later."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    served = daemon(commands={"load": {"run": ["cat", str(gate)]}})
    client = served.connect()
    client.send(b"loadhelp me")
    writer = os.open(gate, os.O_WRONLY)  # waits for the program
    client.send(b"quit")
    os.write(writer, b"hello")
    os.close(writer)
    assert client.read_all() == b"helloquit"
    assert served.wait_for("client.invalid")["command"] == "help"


def test_orphans_that_have_ended_are_reaped(daemon: MakeDaemon, tmp_path: Path) -> None:
    """While their program still runs."""
    script = f"for n in 1 2 3; do (true &); done; cd {tmp_path}; touch ready; {WAIT}; echo done"
    served = daemon(commands={"prog": shell(script)})
    client = served.connect()
    client.send(b"progquit")
    until((tmp_path / "ready").exists, "the program")
    (supervisor,) = children_of(served.handlers[0])
    until(lambda: len(children_of(supervisor)) == 1, "no child but the program")
    (tmp_path / "go").touch()
    assert client.read_all() == b"done\nquit"
