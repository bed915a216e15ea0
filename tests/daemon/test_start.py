"""Start and restart: a failure is reported in one line and leaves nothing behind."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import ANSWER
from tests.support.processes import (
    TIMEOUT_SECONDS,
    Ran,
    files_below,
    first_unprivileged_port,
    run,
    title_of,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import MakeDaemon


TOO_MANY_FILES = (
    "tetrad: too many open files; raise the limit (ulimit -n, or LimitNOFILE= in the unit)\n"
)


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port at which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def pids_titled(text: str) -> list[int]:
    """Return the processes that have this text in their process title or command line."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and text in title_of(int(pid))]


def assert_fails(daemon: Daemon, status: int, *words: str) -> None:
    """Check that a start fails with one line that has these words, and leaves no files."""
    before = files_below(daemon.folder)
    ran = daemon.tetrad("start")
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith("tetrad: ")
    assert ran.err.count("\n") == 1
    assert all(word in ran.err for word in words), ran.err
    assert files_below(daemon.folder) == before
    until(lambda: not pids_titled(daemon.file), "the end of all its processes")


@pytest.mark.quick
def test_a_start_returns_when_clients_are_accepted(prepared: MakeDaemon) -> None:
    """A client can connect at once; the message has the address."""
    asked = prepared()
    ran = asked.tetrad("start")
    asked.adopt(ran.out)
    assert ran == Ran(0, ran.out, "")
    assert ran.out == (
        f"tetrad: started (pid {asked.pid}), listening on 127.0.0.1:{asked.port} (command)\n"
    )
    assert ANSWER.fullmatch(asked.connect().ask())


@pytest.mark.quick
def test_the_pidfile_has_the_pid_of_the_master(shared_daemon: MakeDaemon) -> None:
    """The pidfile is the number and a line feed."""
    served = shared_daemon()
    with open(served.pidfile, encoding="ascii") as file:
        assert file.read() == f"{served.status()['pid']}\n"


@pytest.mark.quick
def test_a_second_start_reports_the_running_daemon(shared_daemon: MakeDaemon) -> None:
    """Starting a running daemon succeeds and changes nothing."""
    served = shared_daemon()
    ran = served.tetrad("start")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"tetrad: already running (pid {served.pid})\n"
    assert served.status()["pid"] == served.pid


def test_one_of_many_simultaneous_starts_succeeds(prepared: MakeDaemon) -> None:
    """The others wait for it and find the daemon running."""
    asked = prepared()
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    starters = [
        subprocess.Popen(command, env=asked.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    outputs = [starter.communicate(timeout=TIMEOUT_SECONDS)[0] for starter in starters]
    assert [starter.returncode for starter in starters] == [0] * 5
    asked.adopt(next(text for text in outputs if "started" in text))
    others = [text for text in outputs if "started" not in text]
    assert others == [f"tetrad: already running (pid {asked.pid})\n"] * 4


@pytest.mark.quick
def test_a_taken_port_is_named(prepared: MakeDaemon, taken: int) -> None:
    """The message has the address at which another program listens."""
    asked = prepared(listen=[{"port": taken}])
    assert_fails(asked, 1, f"127.0.0.1:{taken}: address already in use")


def test_one_taken_port_of_several_undoes_the_others(prepared: MakeDaemon, taken: int) -> None:
    """Listeners that are already open are closed, and their paths are removed."""
    listen = [{"address": "unix:t.sock"}, {"port": 0}, {"port": taken}]
    assert_fails(prepared(listen=listen), 1, str(taken))


def test_an_address_of_another_machine_is_named(prepared: MakeDaemon) -> None:
    """The message has the address that this machine does not have."""
    asked = prepared(listen=[{"address": "192.0.2.1", "port": 0}])
    assert_fails(asked, 1, "192.0.2.1:0", "no network interface of this host has this address")


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
    """Only the default folders are created, not those that the file names."""
    settings: dict[str, Any] = {section: {key: "missing/it"}}
    asked = prepared(**settings)
    assert_fails(asked, 1, f"{asked.folder}/missing/it")


def test_a_missing_folder_of_a_listener_is_named(prepared: MakeDaemon) -> None:
    """The folder of a Unix socket is not created."""
    asked = prepared(listen=[{"address": "unix:missing/it.sock"}])
    assert_fails(asked, 1, f"unix:{asked.folder}/missing/it.sock", "create the directory")


@pytest.mark.parametrize(
    ("section", "key"), [("daemon", "pidfile"), ("daemon", "control"), ("log", "file")]
)
def test_a_folder_at_the_path_of_a_file_is_named(
    prepared: MakeDaemon, section: str, key: str
) -> None:
    """The message has the path that is a folder."""
    settings: dict[str, Any] = {section: {key: "home"}}
    asked = prepared(**settings)
    assert_fails(asked, 1, f"{asked.folder}/home")


def test_a_file_that_is_no_pidfile_is_not_touched(prepared: MakeDaemon) -> None:
    """A wrong path in `daemon.pidfile` does not overwrite another file."""
    asked = prepared(daemon={"pidfile": "tetrad.yaml"})
    assert_fails(asked, 1, "is not a pidfile; not modified")
    with open(asked.file, encoding="utf-8") as file:
        assert "listen" in file.read()


def test_a_socket_that_is_in_use_is_not_replaced(prepared: MakeDaemon) -> None:
    """Only the path of a Unix socket that no process listens on is replaced."""
    asked = prepared(listen=[{"address": "unix:t.sock"}])
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.path.join(asked.folder, "t.sock"))
        other.listen()
        assert_fails(asked, 1, "t.sock: address already in use")


@pytest.mark.parametrize(
    "settings", [{"listen": [{"address": "unix:notes"}]}, {"daemon": {"control": "notes"}}]
)
def test_a_file_at_the_path_of_a_socket_is_not_touched(
    prepared: MakeDaemon, settings: dict[str, Any]
) -> None:
    """A file that is not a socket is never removed."""
    asked = prepared(**settings)
    notes = os.path.join(asked.folder, "notes")
    with open(notes, "w", encoding="ascii") as file:
        file.write("important")
    assert_fails(asked, 1, notes)
    assert os.path.getsize(notes) == len("important")


def test_a_daemon_needs_a_log_file(prepared: MakeDaemon) -> None:
    """A daemon has no standard error; the message names the alternatives."""
    assert_fails(prepared(log={"file": None}), 1, "log.file", "tetrad run")


def test_an_unknown_user_is_an_error_in_the_file(prepared: MakeDaemon) -> None:
    """The user is looked up when the file is read."""
    asked = prepared(daemon={"user": "nosuchuser"})
    assert_fails(asked, 78, f"{asked.file}:", "daemon.user", "nosuchuser")


@pytest.mark.quick
def test_an_invalid_file_starts_nothing(prepared: MakeDaemon) -> None:
    """Each error is a line with file, line and column; the exit status is 78."""
    asked = prepared()
    with open(asked.file, "a", encoding="utf-8") as file:
        file.write("limits: {clients: lots, client: 3}\n")
    ran = asked.tetrad("start")
    assert (ran.status, ran.err.count("\n")) == (78, 2)
    line = ran.err.splitlines()[0]
    assert line.startswith(f"tetrad: {asked.file}:")
    assert "limits.clients" in line
    assert not os.path.exists(asked.pidfile)


def test_an_ordinary_user_cannot_use_port_80(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """The exit status for a missing permission is 4."""
    asked = prepared(folder=nobodys_folder, listen=[{"port": 80}])
    if first_unprivileged_port() <= 80:
        pytest.skip("port 80 is unprivileged on this machine")
    ran = asked.tetrad("start", **nobody())
    assert ran.status == 4
    assert "127.0.0.1:80: permission denied" in ran.err
    assert not os.path.exists(asked.pidfile)


@pytest.mark.parametrize(
    ("section", "key"), [("daemon", "pidfile"), ("daemon", "control"), ("log", "file")]
)
def test_a_folder_of_another_user_needs_permission(
    prepared: MakeDaemon, nobodys_folder: str, section: str, key: str
) -> None:
    """The message has the path, the exit status is 4, and nothing is left."""
    path = f"/etc/tetrad-test-{os.getpid()}"
    asked = prepared(folder=nobodys_folder, **{section: {key: path}})
    before = files_below(nobodys_folder)
    ran = asked.tetrad("start", **nobody())
    assert ran.status == 4
    assert path in ran.err
    assert ran.err.count("\n") == 1
    assert files_below(nobodys_folder) == before


def nobody() -> dict[str, Any]:
    """Return the options that run a program as an ordinary user."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


@pytest.mark.quick
def test_a_restart_starts_another_process(daemon: MakeDaemon) -> None:
    """The daemon is stopped, and another one is started with the same file."""
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


def test_a_restart_with_an_invalid_file_stops_nothing(shared_daemon: MakeDaemon) -> None:
    """Errors in the file are found before the daemon is stopped."""
    served = shared_daemon()
    client = served.served()
    served.configure(limits={"clients": 0})
    ran = served.tetrad("restart")
    served.configure(limits={"clients": 5})
    assert ran.status == 78
    assert f"{served.file}:" in ran.err
    assert ANSWER.fullmatch(client.ask())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"log": {"file": None}}, "log.file is null"),
        ({"log": {"file": "home"}}, "log.file: {folder}/home: is a directory"),
        (
            {"log": {"file": "no/it.log"}},
            "log.file: {folder}/no/it.log: no such file or directory; create ",
        ),
        (
            {"daemon": {"working_directory": "no"}},
            "daemon.working_directory: {folder}/no: no such file",
        ),
        (
            {"listen": [{"address": "192.0.2.77", "port": 0}]},
            "192.0.2.77:0: cannot assign requested address; no network",
        ),
        ({"listen": [{"address": "unix:tetrad.yaml"}]}, "tetrad.yaml: exists and is not a socket"),
        (
            {"listen": [{"address": "unix:no/x"}]},
            "unix:{folder}/no/x: no such file or directory; create ",
        ),
    ],
)
def test_a_restart_that_cannot_start_stops_nothing(
    shared_daemon: MakeDaemon, prepared: MakeDaemon, settings: dict[str, Any], words: str
) -> None:
    """Reasons that would prevent the start are found before the daemon is stopped.

    A start of a daemon with such a file fails with the same message.
    """
    served = shared_daemon()
    valid = copy.deepcopy(served.settings)
    served.configure(**settings)
    ran = served.tetrad("restart")
    served.settings = valid
    served.configure()
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("tetrad: not stopped, because the daemon could not start again; ")
    assert words.format(folder=served.folder) in ran.err
    assert ANSWER.fullmatch(served.connect().ask())
    asked = prepared(**settings)
    assert_fails(asked, 1, ran.err.partition("; ")[2].replace(served.folder, asked.folder))


def test_all_errors_of_a_start_are_reported_at_once(prepared: MakeDaemon) -> None:
    """One line has them all, each with its key or listener."""
    settings: dict[str, Any] = {
        "daemon": {"control": "no/x", "working_directory": "no"},
        "log": {"file": "home"},
        "listen": [{"address": "192.0.2.77", "port": 0}, {"address": "unix:tetrad.yaml"}],
    }
    asked = prepared(**settings)
    keys = ("daemon.control: ", "daemon.working_directory: ", "log.file: ")
    assert_fails(asked, 1, *keys, "192.0.2.77:0: ", f"unix:{asked.file}: ")


def test_a_restart_of_a_stopped_daemon_is_a_start(prepared: MakeDaemon) -> None:
    """The output reports that none was running, and that one was started."""
    asked = prepared()
    ran = asked.tetrad("restart")
    asked.adopt(ran.out)
    assert ran.status == 0
    assert ran.out.startswith(f"{asked.not_running}tetrad: started")


def test_a_pidfile_without_a_lock_is_no_daemon(daemon: MakeDaemon) -> None:
    """After kill -9 `status` exits with 1, dead with a pidfile, and the next start succeeds."""
    served = daemon()
    served.signal(signal.SIGKILL)
    assert served.is_gone()
    assert os.path.exists(served.pidfile)
    ran = served.tetrad("status", "--json")
    assert (ran.status, json.loads(ran.out)["state"]) == (1, "dead")
    assert served.tetrad("stop").status == 0
    served.start()
    assert served.tetrad("status").status == 0


def test_a_pidfile_with_the_pid_of_another_process_is_no_daemon(prepared: MakeDaemon) -> None:
    """The lock decides, not the number: the other process is not stopped."""
    asked = prepared()
    with subprocess.Popen(["/bin/sleep", "1000"]) as other:
        with open(asked.pidfile, "w", encoding="ascii") as file:
            file.write(f"{other.pid}\n")
        assert asked.tetrad("status").status == 1
        assert asked.tetrad("stop").status == 0
        asked.start()
        assert other.poll() is None
        other.kill()
    assert asked.pid != other.pid


def test_the_daemon_does_not_keep_the_streams_of_the_start(prepared: MakeDaemon) -> None:
    """A pipe that `tetrad start` writes to is closed when it exits."""
    asked = prepared()
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    with subprocess.Popen(
        command, env=asked.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as starter:
        asked.adopt(starter.communicate(timeout=TIMEOUT_SECONDS)[0])
    assert starter.returncode == 0


def test_a_start_works_with_closed_streams(prepared: MakeDaemon) -> None:
    """Some boot scripts close the standard streams."""
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
def test_the_foreground_works_with_closed_streams(prepared: MakeDaemon, closing: str) -> None:
    """With a log file the streams are not needed."""
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


def test_a_running_daemon_is_not_checked_for_a_log_file(prepared: MakeDaemon) -> None:
    """A file for `tetrad run` is not an error if nothing is started."""
    asked = prepared(log={"file": None})
    asked.run(f"{asked.folder}/output")
    until(lambda: asked.tetrad("status").status == 0, "its status")
    ran = asked.tetrad("start")
    assert (ran.status, ran.out) == (0, f"tetrad: already running (pid {asked.pid})\n")


def test_a_path_that_is_not_a_socket_is_reported(prepared: MakeDaemon) -> None:
    """The file is not removed."""
    asked = prepared()
    asked.configure(listen=[{"address": "unix:tetrad.yaml"}])
    assert_fails(
        asked, 1, "tetrad.yaml: exists and is not a socket; not removed; name another path"
    )


def test_a_file_may_have_any_name(prepared: MakeDaemon) -> None:
    """A name that is not valid UTF-8 is escaped in messages."""
    asked = prepared()
    odd = os.path.join(os.fsencode(asked.folder), b"caf\xe9.yaml")
    os.rename(asked.file, odd)
    asked.file = os.fsdecode(odd)
    asked.start()
    assert asked.status()["config"].endswith("caf\\xe9.yaml")
    assert asked.wait_for("server.started")["config"].endswith("caf\\xe9.yaml")
    assert asked.tetrad("reload").status == 0


def test_a_start_succeeds_or_reports_too_few_descriptors(
    prepared: MakeDaemon,
) -> None:
    """This holds for every limit, also one that is reached when descriptors are moved."""
    asked = prepared()
    command = [sys.executable, "-m", "tetrad", "start", "-c", asked.file]
    for limit in range(14, 64):
        script = f'ulimit -n {limit}; exec "$@"'
        ran = run(["/bin/sh", "-c", script, "sh", *command], asked.environment)
        if ran.status == 0:
            break
        assert ran.err == TOO_MANY_FILES
    asked.adopt(ran.out)
    assert ANSWER.fullmatch(asked.connect().ask())
