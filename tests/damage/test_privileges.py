"""The credentials and descriptors of each process are exactly those of ARCHITECTURE.md."""

from __future__ import annotations

import grp
import os
import pwd
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.damage.test_start_races import ended, starting, wait_for_pid
from tests.support.clients import ANSWER
from tests.support.daemons import ROOT_WARNING
from tests.support.processes import (
    UNDER_COVERAGE,
    children_of,
    descriptors_of,
    first_unprivileged_port,
    run,
    status_of,
    stopped,
    title_of,
    until,
)
from tests.support.project import ROOT
from tests.support.system_programs import needs
from tetrad.ipc import fds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

ARCHITECTURE = ROOT / "ARCHITECTURE.md"

NOBODY = pwd.getpwnam("nobody")

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

PLACE = f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}.78"
"""A loopback address that only this test uses, so that all its ports are free."""

unmeasured = pytest.mark.skipif(UNDER_COVERAGE, reason="coverage opens descriptors")


def privileges_of(pid: int) -> dict[str, Any]:
    """Return the credentials of a process."""
    status = status_of(pid)
    return {
        "user": set(map(int, status["Uid"].split())),
        "group": set(map(int, status["Gid"].split())),
        "groups": sorted(map(int, status["Groups"].split())),
        "capabilities": {name: int(status[name], 16) for name in CAPABILITIES},
        "gains more": status["NoNewPrivs"] == "0",
        "umask": int(status["Umask"], 8),
    }


def nobody_privileges(**changes: object) -> dict[str, Any]:
    """Return the credentials of a process that runs as nobody."""
    return {
        "user": {NOBODY.pw_uid},
        "group": {NOBODY.pw_gid},
        "groups": sorted(os.getgrouplist("nobody", NOBODY.pw_gid)),
        "capabilities": dict.fromkeys(CAPABILITIES, 0),
        "gains more": False,
        "umask": 0o027,
        **changes,
    }


@pytest.fixture
def unprivileged(daemon: MakeDaemon, nobodys_folder: str) -> Daemon:
    """Return a daemon that root has started with `daemon.user: nobody`, listening on port 80."""
    place = {"address": PLACE, "port": 80}
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"}, listen=[place])
    served.wait_for("server.listening")
    return served


def connect_client(served: Daemon) -> int:
    """Connect a client, and return its handler's pid."""
    client = served.connect(host=PLACE)
    assert ANSWER.fullmatch(client.ask())
    return until(lambda: served.handlers, "a handler")[0]


def start_config_reader(served: Daemon) -> int:
    """Start a reload, and return the pid of the config reader."""
    served.signal(signal.SIGHUP)

    def find() -> int:
        below = [pid for child in children_of(served.pid) for pid in children_of(child)]
        return next((pid for pid in below if "helpers.config_reader" in title_of(pid)), 0)

    return until(find, "the config reader")


def test_all_processes_run_as_nobody_without_capabilities(
    unprivileged: Daemon, figure: Figure
) -> None:
    """Master, logger, handler and config reader: user, group, groups, capabilities, umask."""
    handler = connect_client(unprivileged)
    reader = unprivileged.watch(start_config_reader(unprivileged))
    with stopped(reader.pid):
        pids = {"master": unprivileged.pid, "logger": unprivileged.logger, "handler": handler}
        found = {name: privileges_of(pid) for name, pid in {**pids, "reader": reader.pid}.items()}
    assert found == dict.fromkeys(found, nobody_privileges())
    figure(f"{', '.join(found)}: nobody, no capability in {', '.join(CAPABILITIES)}")


def test_daemon_group_replaces_the_users_group(
    daemon: MakeDaemon, nobodys_folder: str, figure: Figure
) -> None:
    """The supplementary groups are the user's, not those of the caller."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody", "group": "daemon"})
    group = grp.getgrnam("daemon").gr_gid
    groups = sorted(os.getgrouplist("nobody", group))
    found = [privileges_of(pid) for pid in (served.pid, served.logger)]
    assert found == [nobody_privileges(group={group}, groups=groups)] * 2
    figure(f"group {group}, groups {groups}")


@pytest.mark.parametrize("user", [None, "root"])
def test_without_daemon_user_root_stays_root(
    daemon: MakeDaemon, nobodys_folder: str, user: str | None
) -> None:
    """Root keeps its capabilities; no_new_privs is set in any case."""
    served = daemon(folder=nobodys_folder, daemon={"user": user})
    own = privileges_of(os.getpid())
    found = privileges_of(served.pid)
    assert (found["user"], found["gains more"]) == ({0}, False)
    assert found["capabilities"] == own["capabilities"]


def test_an_upgrade_runs_as_the_daemons_user(unprivileged: Daemon) -> None:
    """The upgrade needs no root, and the port below 1024 stays open."""
    handler = connect_client(unprivileged)
    before = unprivileged.logger
    assert unprivileged.tetrad("upgrade").status == 0
    unprivileged.wait_for("server.upgraded")
    (logger,) = until(lambda: set(unprivileged.loggers) - {before}, "the new logger")
    pids = [unprivileged.pid, logger, handler, connect_client(unprivileged)]
    assert [privileges_of(pid) for pid in pids] == [nobody_privileges()] * 4


def as_table(text: str, heading: str) -> Iterator[list[str]]:
    """Yield the rows of the Markdown table that starts with this heading."""
    rows = text[text.index(heading) :].partition("\n\n")[0].splitlines()
    for row in rows[2:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


def documented() -> dict[str, dict[int, str]]:
    """Return the descriptors of each process from ARCHITECTURE.md."""
    found: dict[str, dict[int, str]] = {"master": {}, "logger": {}, "handler": {}}
    for numbers, *cells in as_table(ARCHITECTURE.read_text("utf-8"), "| descriptor |"):
        for number in map(int, re.findall(r"\d+", numbers)):
            for process, cell in zip(found, cells, strict=True):
                if cell:
                    found[process][number] = re.sub(r" *\(.*\)", "", cell)
    return found


def descriptors_by_role(served: Daemon, pid: int) -> dict[int, str]:
    """Return the descriptors of a process in the terms of ARCHITECTURE.md."""
    of_master = descriptors_of(served.pid)
    words = {
        "/dev/null": "null device",
        "/memfd:runtime_config (deleted)": "runtime configuration",
        "/memfd:log_counters (deleted)": "log counters",
        "anon_inode:[eventpoll]": "epoll",
        "anon_inode:[pidfd]": "pidfd",
        served.pidfile: "pidfile",
        served.log_file: "log file",
        of_master[fds.EVENTS_WRITE]: "event pipe",
        of_master[fds.NOTICES_WRITE]: "notice pipe",
        of_master[fds.SHUTDOWN_READ]: "shutdown pipe",
        of_master[fds.CONTROL]: "control socket",
        of_master[fds.FIRST_LISTENER]: "listener",
    }
    others = {"pipe": "signal pipe", "socket": "client"}
    roles = {}
    for fd, name in descriptors_of(pid).items():
        word = words.get(name) or others.get(name.partition(":")[0], name)
        roles[fd] = f"{word}, {end_of(pid, fd)}" if name.startswith("pipe:") else word
    return roles


def end_of(pid: int, fd: int) -> str:
    """Return which end of a pipe a descriptor is."""
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
        flags = int(file.read().partition("flags:")[2].split()[0], 8)
    return "write" if flags & os.O_WRONLY else "read"


@unmeasured
def test_each_process_has_the_documented_descriptors(unprivileged: Daemon, figure: Figure) -> None:
    """Master, logger and handler have the descriptors of the table, and no others."""
    logger = descriptors_by_role(unprivileged, unprivileged.logger)
    master = descriptors_by_role(unprivileged, unprivileged.pid)
    handler = descriptors_by_role(unprivileged, connect_client(unprivileged))
    found = {"master": master, "logger": logger, "handler": handler}
    assert found == documented()
    figure(", ".join(f"{name}: {len(roles)}" for name, roles in found.items()) + " descriptors")


def test_the_launcher_stays_root_and_the_daemon_is_unprivileged(
    prepared: MakeDaemon, nobodys_folder: str
) -> None:
    """The daemon runs as nobody from the moment its pid is in the pidfile."""
    asked = prepared(folder=nobodys_folder, daemon={"user": "nobody"})
    with starting(asked) as starter:
        pid = wait_for_pid(asked)
        with stopped(pid):
            launcher = status_of(starter.pid)
            assert privileges_of(pid) == nobody_privileges()
        status, output = ended(starter)
    assert (status, set(launcher["Uid"].split())) == (0, {"0"})
    asked.adopt(output)


KEEP_CAPABILITIES = [
    "--securebits=+no_setuid_fixup",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
]
"""Start root so that a change of user alone keeps its capabilities."""


@needs("setpriv")
def test_capabilities_that_survive_setuid_are_dropped(
    prepared: MakeDaemon, nobodys_folder: str
) -> None:
    """Securebits and ambient capabilities of the caller have no effect."""
    asked = prepared(folder=nobodys_folder, daemon={"user": "nobody"})
    with starting(asked, "setpriv", *KEEP_CAPABILITIES) as starter:
        status, output = ended(starter)
    assert status == 0, output
    asked.adopt(output)
    assert [privileges_of(pid) for pid in (asked.pid, asked.logger)] == [nobody_privileges()] * 2


needs_low_ports = pytest.mark.skipif(
    first_unprivileged_port() < 1024, reason="ports below 1024 do not need root here"
)


def assert_is_refused(served: Daemon, *words: str, is_file_bad: bool = True) -> None:
    """Check that a reload fails with these words in its output and in the log."""
    ran = served.tetrad("reload")
    (error,) = served.wait_for("server.reload_failed")["errors"]
    if is_file_bad:
        kept = "tetrad: not reloaded; the old configuration stays in effect\n"
        assert ran == (78, "", f"{kept}tetrad: {error}\n")
    else:
        assert ran == (1, "", f"tetrad: not reloaded; {error}\n")
    assert all(word in error for word in words), error
    with served.connect(host=PLACE).socket as client:
        client.sendall(b"time")
        assert ANSWER.fullmatch(client.recv(100))


@needs_low_ports
def test_a_reload_cannot_open_a_port_below_1024(unprivileged: Daemon) -> None:
    """The message names the listener, and tells to restart."""
    low = [{"address": PLACE, "port": port} for port in (80, 81)]
    unprivileged.configure(listen=low)
    assert_is_refused(
        unprivileged, f"{PLACE}:81", "permission denied", "use tetrad restart", is_file_bad=False
    )


@pytest.mark.parametrize("change", [{"user": "daemon"}, {"user": None}, {"group": "daemon"}])
def test_a_reload_cannot_change_the_user(
    unprivileged: Daemon, change: dict[str, str | None]
) -> None:
    """`daemon.user` and `daemon.group` cannot change while the daemon runs."""
    unprivileged.configure(daemon=change)
    assert_is_refused(unprivileged, f"daemon.{next(iter(change))} cannot change", "restart")


def test_a_reload_of_an_unreadable_file_names_the_user(unprivileged: Daemon) -> None:
    """Root could read the file at the start; the daemon's user cannot."""
    os.chmod(unprivileged.file, 0o600)
    assert_is_refused(unprivileged, unprivileged.file, "nobody", "permission")


def warnings_of(asked: Daemon, *arguments: str, **options: Any) -> str:  # noqa: ANN401
    """Run a command, which must succeed, and return its standard error unchanged."""
    command = [sys.executable, "-m", "tetrad", *arguments, "-c", asked.file]
    ran = run(command, asked.environment, **options)
    assert ran.status == 0, ran.err
    return ran.err


def test_root_without_daemon_user_is_warned(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """`check`, `start` and `run` print one line; with a user there is no warning."""
    asked = prepared(folder=nobodys_folder)
    assert warnings_of(asked, "check") == warnings_of(asked, "start") == ROOT_WARNING
    assert warnings_of(asked, "stop") == ""
    output = os.path.join(nobodys_folder, "output")
    asked.run(output)
    asked.wait_for("server.started", count=2)
    with open(output, encoding="utf-8") as file:
        assert file.read().count(ROOT_WARNING) == 1
    asked.stop()
    os.unlink(asked.log_file)  # root's, to which nobody could not write
    for user in ("nobody", "root"):
        asked.configure(daemon={"user": user})
        assert warnings_of(asked, "check") == ""


def test_an_ordinary_user_is_not_warned(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """Without root there are no privileges to drop."""
    asked = prepared(folder=nobodys_folder)
    assert warnings_of(asked, "check", user="nobody", group="nogroup", extra_groups=[]) == ""
