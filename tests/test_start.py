"""Starting: what can go wrong is told in one line, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from clients import ANSWER
from processes import TIMEOUT_SECONDS, Ran, files_below, first_unprivileged_port, run, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import MakeDaemon
    from daemons import Daemon


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port at which somebody else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def assert_fails(daemon: Daemon, status: int, *words: str) -> None:
    """Check that a start fails with one line that has these words, and leaves no trace."""
    before = files_below(daemon.folder)
    ran = daemon.tetrad("start")
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith("tetrad: ")
    assert ran.err.count("\n") == 1
    assert all(word in ran.err for word in words), ran.err
    assert files_below(daemon.folder) == before
    assert daemon.tetrad("status").status in {3, 4}


def test_a_start_returns_when_clients_are_accepted(prepared: MakeDaemon) -> None:
    """The first thing behind a start can be a client; the message says where."""
    asked = prepared()
    ran = asked.tetrad("start")
    asked.adopt(ran.out)
    assert ran == Ran(0, ran.out, "")
    assert ran.out == (
        f"tetrad: started (pid {asked.pid}), listening on 127.0.0.1:{asked.port} (command)\n"
    )
    assert ANSWER.fullmatch(asked.connect().ask())


def test_the_pidfile_holds_the_masters_pid(daemon: MakeDaemon) -> None:
    """The number and a line ending, readable by everybody whom the umask lets."""
    served = daemon()
    with open(served.pidfile, encoding="ascii") as file:
        assert file.read() == f"{served.status()['pid']}\n"


def test_a_second_start_says_that_one_runs(daemon: MakeDaemon) -> None:
    """Starting what runs already is no failure, and changes nothing."""
    served = daemon()
    ran = served.tetrad("start")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"tetrad: already running (pid {served.pid})\n"
    assert served.status()["pid"] == served.pid


def test_of_many_starts_at_once_one_succeeds(prepared: MakeDaemon) -> None:
    """Starters wait for each other: one starts a daemon, the others find it running."""
    asked = prepared()
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    starters = [
        subprocess.Popen(command, env=asked.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    told = [starter.communicate(timeout=TIMEOUT_SECONDS)[0] for starter in starters]
    assert [starter.returncode for starter in starters] == [0] * 5
    asked.adopt(next(text for text in told if "started" in text))
    others = [text for text in told if "started" not in text]
    assert others == [f"tetrad: already running (pid {asked.pid})\n"] * 4


def test_a_taken_port_is_named(prepared: MakeDaemon, taken: int) -> None:
    """Another program at the port is a failure that says where."""
    asked = prepared(listen=[{"port": taken}])
    assert_fails(asked, 1, f"127.0.0.1:{taken}: address already in use")


def test_one_taken_port_of_several_undoes_all(prepared: MakeDaemon, taken: int) -> None:
    """Listeners that were open already are closed, and their paths taken away."""
    listen = [{"address": "unix:t.sock"}, {"port": 0}, {"port": taken}]
    assert_fails(prepared(listen=listen), 1, str(taken))


def test_an_address_of_another_machine_is_named(prepared: MakeDaemon) -> None:
    """An address that this machine does not have is a failure that says so."""
    asked = prepared(listen=[{"address": "192.0.2.1", "port": 0}])
    assert_fails(asked, 1, "192.0.2.1:0", "no such address")


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("daemon", "pidfile"),
        ("daemon", "control"),
        ("log", "file"),
        ("daemon", "working_directory"),
    ],
)
def test_a_missing_folder_is_named(prepared: MakeDaemon, section: str, key: str) -> None:
    """A folder that an operator has named is theirs to make."""
    settings: dict[str, Any] = {section: {key: "missing/it"}}
    asked = prepared(**settings)
    assert_fails(asked, 1, f"{asked.folder}/missing/it")


def test_a_missing_folder_of_a_listener_is_named(prepared: MakeDaemon) -> None:
    """A Unix socket needs its folder, too."""
    asked = prepared(listen=[{"address": "unix:missing/it.sock"}])
    assert_fails(asked, 1, f"unix:{asked.folder}/missing/it.sock", "does not exist")


@pytest.mark.parametrize(
    ("section", "key"), [("daemon", "pidfile"), ("daemon", "control"), ("log", "file")]
)
def test_a_folder_in_the_place_of_a_file_is_named(
    prepared: MakeDaemon, section: str, key: str
) -> None:
    """What cannot be written because it is a folder is a failure that names it."""
    settings: dict[str, Any] = {section: {key: "home"}}
    asked = prepared(**settings)
    assert_fails(asked, 1, f"{asked.folder}/home")


def test_a_file_that_is_no_pidfile_is_not_touched(prepared: MakeDaemon) -> None:
    """A slip of the pen in `daemon.pidfile` does not cost anybody's text."""
    asked = prepared(daemon={"pidfile": "tetrad.yaml"})
    assert_fails(asked, 1, "no pidfile")
    with open(asked.file, encoding="utf-8") as file:
        assert "listen" in file.read()


def test_a_socket_that_somebody_serves_is_not_taken(prepared: MakeDaemon) -> None:
    """A Unix socket's path is taken over from the dead only."""
    asked = prepared(listen=[{"address": "unix:t.sock"}])
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.path.join(asked.folder, "t.sock"))
        other.listen()
        assert_fails(asked, 1, "t.sock: address already in use")


@pytest.mark.parametrize(
    "settings", [{"listen": [{"address": "unix:notes"}]}, {"daemon": {"control": "notes"}}]
)
def test_a_file_in_the_place_of_a_socket_is_not_touched(
    prepared: MakeDaemon, settings: dict[str, Any]
) -> None:
    """What is no socket is never removed for one."""
    asked = prepared(**settings)
    notes = os.path.join(asked.folder, "notes")
    with open(notes, "w", encoding="ascii") as file:
        file.write("important")
    assert_fails(asked, 1, notes)
    assert os.path.getsize(notes) == len("important")


def test_a_daemon_needs_a_log_file(prepared: MakeDaemon) -> None:
    """Without a terminal there is no standard error to log to, so a start says what to do."""
    assert_fails(prepared(log={"file": None}), 1, "log.file", "tetrad run")


def test_an_unknown_user_is_a_problem_of_the_file(prepared: MakeDaemon) -> None:
    """A user that this machine does not have is found when the file is read."""
    asked = prepared(daemon={"user": "nosuchuser"})
    assert_fails(asked, 78, f"{asked.file}:", "daemon.user", "nosuchuser")


def test_a_bad_file_starts_nothing(prepared: MakeDaemon) -> None:
    """Every problem has a line with file, line and column; the status is 78."""
    asked = prepared()
    with open(asked.file, "a", encoding="utf-8") as file:
        file.write("limits: {clients: lots, client: 3}\n")
    ran = asked.tetrad("start")
    assert (ran.status, ran.err.count("\n")) == (78, 2)
    line = ran.err.splitlines()[0]
    assert line.startswith(f"tetrad: {asked.file}:")
    assert "limits.clients" in line
    assert not os.path.exists(asked.pidfile)


def test_an_ordinary_user_has_no_low_ports(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """Want of permission has a status of its own, 4."""
    asked = prepared(folder=nobodys_folder, listen=[{"port": 80}])
    if first_unprivileged_port() <= 80:
        pytest.skip("everybody may have port 80 here")
    ran = asked.tetrad("start", **nobody())
    assert ran.status == 4
    assert "127.0.0.1:80: permission denied" in ran.err
    assert not os.path.exists(asked.pidfile)


@pytest.mark.parametrize(
    ("section", "key"), [("daemon", "pidfile"), ("daemon", "control"), ("log", "file")]
)
def test_a_folder_of_somebody_else_is_a_matter_of_permission(
    prepared: MakeDaemon, nobodys_folder: str, section: str, key: str
) -> None:
    """What an ordinary user may not write is named, with status 4, and nothing is left."""
    path = f"/etc/tetrad-test-{os.getpid()}"
    asked = prepared(folder=nobodys_folder, **{section: {key: path}})
    before = files_below(nobodys_folder)
    ran = asked.tetrad("start", **nobody())
    assert ran.status == 4
    assert path in ran.err
    assert ran.err.count("\n") == 1
    assert files_below(nobodys_folder) == before


def nobody() -> dict[str, Any]:
    """Return how to run a program as an ordinary user."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


def test_a_restart_has_another_pid(daemon: MakeDaemon) -> None:
    """Stopped and started: the same file, another process."""
    served = daemon()
    client, before = served.served(), served.pid
    ran = served.tetrad("restart")
    assert ran.status == 0
    assert f"stopped (pid {before})" in ran.out
    assert client.read_all() == b""
    assert served.is_gone()
    served.adopt(ran.out)
    assert served.pid != before
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_restart_with_a_bad_file_stops_nothing(daemon: MakeDaemon) -> None:
    """A bad configuration is found before the daemon that runs is touched."""
    served = daemon()
    client = served.served()
    served.configure(limits={"clients": 0})
    ran = served.tetrad("restart")
    assert ran.status == 78
    assert f"{served.file}:" in ran.err
    assert ANSWER.fullmatch(client.ask())
    served.configure(limits={"clients": 5})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"log": {"file": None}}, "log.file is null"),
        ({"log": {"file": "home"}}, "log.file: {folder}/home: is a directory"),
        ({"log": {"file": "no/it.log"}}, "log.file: {folder}/no: no such directory"),
        ({"daemon": {"working_directory": "no"}}, "daemon.working_directory: {folder}/no: no such"),
        ({"listen": [{"address": "192.0.2.77", "port": 0}]}, "192.0.2.77:0: cannot assign"),
        ({"listen": [{"address": "unix:tetrad.yaml"}]}, "tetrad.yaml: that is no socket"),
        ({"listen": [{"address": "unix:no/x"}]}, "unix:{folder}/no/x: {folder}/no: no such"),
    ],
)
def test_a_restart_that_cannot_start_stops_nothing(
    daemon: MakeDaemon, settings: dict[str, Any], words: str
) -> None:
    """What is known to go wrong is told while there is a daemon that serves."""
    served = daemon()
    served.configure(**settings)
    ran = served.tetrad("restart")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("tetrad: nothing is stopped; ")
    assert words.format(folder=served.folder) in ran.err
    assert ANSWER.fullmatch(served.connect().ask())


def test_a_restart_of_what_does_not_run_is_a_start(prepared: MakeDaemon) -> None:
    """There is nothing to stop, which is said, and a daemon is started."""
    asked = prepared()
    ran = asked.tetrad("restart")
    asked.adopt(ran.out)
    assert ran.status == 0
    assert ran.out.startswith("tetrad: not running\ntetrad: started")


def test_a_pidfile_that_was_left_is_no_daemon(daemon: MakeDaemon) -> None:
    """After kill -9 the status is 1, dead with a pidfile, and the next start just works."""
    served = daemon()
    served.signal(signal.SIGKILL)
    assert served.is_gone()
    assert os.path.exists(served.pidfile)
    ran = served.tetrad("status", "--json")
    assert (ran.status, json.loads(ran.out)["state"]) == (1, "dead")
    assert served.tetrad("stop").status == 0
    served.start()
    assert served.tetrad("status").status == 0


def test_a_pidfile_with_another_processs_pid_is_no_daemon(prepared: MakeDaemon) -> None:
    """The lock decides, not the number: an innocent process is neither trusted nor stopped."""
    asked = prepared()
    with subprocess.Popen(["/bin/sleep", "1000"]) as innocent:
        with open(asked.pidfile, "w", encoding="ascii") as file:
            file.write(f"{innocent.pid}\n")
        assert asked.tetrad("status").status == 1
        assert asked.tetrad("stop").status == 0
        asked.start()
        assert innocent.poll() is None
        innocent.kill()
    assert asked.pid != innocent.pid


def test_a_start_lets_go_of_its_streams(prepared: MakeDaemon) -> None:
    """A pipe to which `tetrad start` writes ends with it, not with the daemon."""
    asked = prepared()
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    with subprocess.Popen(
        command, env=asked.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as starter:
        asked.adopt(starter.communicate(timeout=TIMEOUT_SECONDS)[0])
    assert starter.returncode == 0


def test_a_start_does_without_streams(prepared: MakeDaemon) -> None:
    """Closed standard streams, as some boot scripts have them, are no reason to fail."""
    asked = prepared()
    script = 'exec "$@" <&- >&- 2>&-'
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    subprocess.run(
        ["/bin/sh", "-c", script, "sh", *command],
        env=asked.environment,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    until(lambda: os.path.getsize(asked.pidfile), "the pid")
    asked.adopt("")
    port = asked.status()["listeners"][0]["port"]
    asked.ports = [port]
    assert ANSWER.fullmatch(asked.connect().ask())
    assert {os.readlink(f"/proc/{asked.pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_daemon_in_the_foreground_does_without_streams(
    prepared: MakeDaemon, closing: str
) -> None:
    """With a log file there is nothing that it needs them for."""
    asked = prepared()
    command = [sys.executable, "-m", "tetrad", "run", "-c", asked.file]
    with subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *command],
        env=asked.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as foreground:
        until(lambda: asked.events("server.listening"), "its listener")
        asked.ports = [asked.events("server.listening")[0]["port"]]
        assert ANSWER.fullmatch(asked.connect().ask())
        foreground.terminate()
    assert foreground.returncode == 0


def test_what_runs_already_is_not_asked_for_more(prepared: MakeDaemon) -> None:
    """A log that only `tetrad run` can have does not matter to a start that starts nothing."""
    asked = prepared(log={"file": None})
    asked.run(f"{asked.folder}/output")
    until(lambda: asked.tetrad("status").status == 0, "its status")
    ran = asked.tetrad("start")
    assert (ran.status, ran.out) == (0, f"tetrad: already running (pid {asked.pid})\n")


def test_a_path_that_is_no_socket_is_told_so(prepared: MakeDaemon) -> None:
    """Nobody listens at a plain file, and nobody takes it away."""
    asked = prepared()
    asked.configure(listen=[{"address": "unix:tetrad.yaml"}])
    assert_fails(asked, 1, "that is no socket, so it is not taken away")


def test_a_file_may_have_any_name(prepared: MakeDaemon) -> None:
    """One that is no text is escaped where it is shown, and read all the same."""
    asked = prepared()
    odd = os.path.join(os.fsencode(asked.folder), b"caf\xe9.yaml")
    os.rename(asked.file, odd)
    asked.file = os.fsdecode(odd)
    asked.start()
    assert asked.status()["config"].endswith("caf\\xe9.yaml")
    assert asked.wait_for("server.started")["config"].endswith("caf\\xe9.yaml")
    assert asked.tetrad("reload").status == 0


def test_whatever_descriptors_there_are_a_start_succeeds_or_says_that_they_are_too_few(
    prepared: MakeDaemon,
) -> None:
    """Also where the last one is wanted when they are put into their places for the master."""
    asked = prepared()
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    for limit in range(14, 64):
        script = f'ulimit -n {limit}; exec "$@"'
        ran = run(["/bin/sh", "-c", script, "sh", *command], asked.environment)
        if ran.status == 0:
            break
        assert ran.err == "tetrad: too many open files\n"
    asked.adopt(ran.out)
    assert ANSWER.fullmatch(asked.connect().ask())
