"""Privileges: what each process is and holds, as ARCHITECTURE.md has it, and nothing beyond."""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import re
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from clients import ANSWER
from daemons import WARNING
from damage.test_start_races import ended, starting, until_it_has_a_pid
from processes import (
    MEASURED,
    children_of,
    descriptors_of,
    first_port_for_everybody,
    run,
    status_of,
    stopped,
    title_of,
    until,
)
from tetrad.ipc import fds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Figure, MakeDaemon
    from daemons import Daemon

ARCHITECTURE = pathlib.Path(__file__).parents[2] / "ARCHITECTURE.md"

NOBODY = pwd.getpwnam("nobody")

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

PLACE = f"127.{os.getpid() >> 8 & 127}.{os.getpid() & 255}.78"
"""An address of this test alone, so that its ports are."""

unmeasured = pytest.mark.skipif(MEASURED, reason="coverage has descriptors of its own")
needs_setpriv = pytest.mark.skipif(not shutil.which("setpriv"), reason="install util-linux")


def privileges_of(pid: int) -> dict[str, Any]:
    """Return who a process is, and what it may."""
    status = status_of(pid)
    return {
        "user": set(map(int, status["Uid"].split())),
        "group": set(map(int, status["Gid"].split())),
        "groups": sorted(map(int, status["Groups"].split())),
        "capabilities": {name: int(status[name], 16) for name in CAPABILITIES},
        "gains more": status["NoNewPrivs"] == "0",
        "umask": int(status["Umask"], 8),
    }


def of_nobody(**changes: object) -> dict[str, Any]:
    """Return what a process may that has become nobody."""
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
def dropped(daemon: MakeDaemon, nobodys_folder: str) -> Daemon:
    """Return a daemon that root has started, with a client, and that is nobody's."""
    place = {"address": PLACE, "port": 80}
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"}, listen=[place])
    served.wait_for("server.listening")
    return served


def client_of(served: Daemon) -> int:
    """Have a client, and return its handler's pid."""
    client = served.connect(host=PLACE)
    assert ANSWER.fullmatch(client.ask())
    return until(lambda: served.handlers, "a handler")[0]


def reader_of(served: Daemon) -> int:
    """Have the file read again, and return the pid of the program that does."""
    served.signal(signal.SIGHUP)

    def look() -> int:
        others = set(children_of(served.pid)) - {served.logger, *served.handlers}
        return next((pid for pid in others if not title_of(pid).startswith("tetrad: ")), 0)

    return until(look, "a program that reads the file")


def test_every_process_is_nobody_and_may_nothing(dropped: Daemon, figure: Figure) -> None:
    """Master, logger, handler and reader: user, group, groups, capabilities, umask."""
    handler = client_of(dropped)
    reader = dropped.watch(reader_of(dropped))
    with stopped(reader.pid):
        pids = {"master": dropped.pid, "logger": dropped.logger, "handler": handler}
        found = {name: privileges_of(pid) for name, pid in {**pids, "reader": reader.pid}.items()}
    assert found == dict.fromkeys(found, of_nobody())
    figure(f"{', '.join(found)}: nobody, no capability in {', '.join(CAPABILITIES)}")


def test_a_group_and_all_of_the_users_groups(
    daemon: MakeDaemon, nobodys_folder: str, figure: Figure
) -> None:
    """With `daemon.group` that is the group; whoever started the daemon leaves none of theirs."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody", "group": "daemon"})
    group = grp.getgrnam("daemon").gr_gid
    groups = sorted(os.getgrouplist("nobody", group))
    found = [privileges_of(pid) for pid in (served.pid, served.logger)]
    assert found == [of_nobody(group={group}, groups=groups)] * 2
    figure(f"group {group}, groups {groups}")


@pytest.mark.parametrize("user", [None, "root"])
def test_without_another_user_root_stays_root_and_gains_nothing(
    daemon: MakeDaemon, nobodys_folder: str, user: str | None
) -> None:
    """Root keeps what it has; that no program ever gains a privilege holds for everybody."""
    served = daemon(folder=nobodys_folder, daemon={"user": user})
    own = privileges_of(os.getpid())
    found = privileges_of(served.pid)
    assert (found["user"], found["gains more"]) == ({0}, False)
    assert found["capabilities"] == own["capabilities"]


def test_an_upgrade_needs_no_privilege_and_gains_none(dropped: Daemon) -> None:
    """The daemon's user does it, and the port that only root could open stays open."""
    handler = client_of(dropped)
    assert dropped.tetrad("upgrade").status == 0
    dropped.wait_for("server.upgraded")
    pids = [dropped.pid, dropped.logger, handler, client_of(dropped)]
    assert [privileges_of(pid) for pid in pids] == [of_nobody()] * 4


def as_table(text: str, heading: str) -> Iterator[list[str]]:
    """Go through the rows of the table that begins with a heading."""
    rows = text[text.index(heading) :].partition("\n\n")[0].splitlines()
    for row in rows[2:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


def documented() -> dict[str, dict[int, str]]:
    """Return what each process holds at which descriptor, by ARCHITECTURE.md."""
    found: dict[str, dict[int, str]] = {"master": {}, "logger": {}, "handler": {}}
    for numbers, *cells in as_table(ARCHITECTURE.read_text("utf-8"), "| descriptor |"):
        for number in map(int, re.findall(r"\d+", numbers)):
            for process, cell in zip(found, cells, strict=True):
                if cell:
                    found[process][number] = re.sub(r" *\(.*\)", "", cell)
    return found


def held_by(served: Daemon, pid: int) -> dict[int, str]:
    """Return what a process holds at which descriptor, in the words of ARCHITECTURE.md."""
    of_master = descriptors_of(served.pid)
    words = {
        "/dev/null": "null device",
        "/memfd:plan (deleted)": "runtime configuration",
        "/memfd:tally (deleted)": "log counters",
        "anon_inode:[eventpoll]": "epoll",
        "anon_inode:[pidfd]": "pidfd",
        served.pidfile: "pidfile",
        served.log_file: "log file",
        of_master[fds.EVENTS_WRITE]: "event pipe",
        of_master[fds.NOTICES_WRITE]: "exit notices",
        of_master[fds.SHUTDOWN_READ]: "shutdown pipe",
        of_master[fds.CONTROL]: "control socket",
        of_master[fds.FIRST_LISTENER]: "listener",
    }
    others = {"pipe": "signal pipe", "socket": "client"}
    held = {}
    for fd, name in descriptors_of(pid).items():
        word = words.get(name) or others.get(name.partition(":")[0], name)
        held[fd] = f"{word}, {end_of(pid, fd)}" if name.startswith("pipe:") else word
    return held


def end_of(pid: int, fd: int) -> str:
    """Tell which end of a pipe a descriptor is."""
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
        flags = int(file.read().partition("flags:")[2].split()[0], 8)
    return "write" if flags & os.O_WRONLY else "read"


@unmeasured
def test_each_process_holds_what_is_documented(dropped: Daemon, figure: Figure) -> None:
    """The descriptors of master, logger and handler are those of the table, and no more."""
    logger = held_by(dropped, dropped.logger)
    master = held_by(dropped, dropped.pid)
    handler = held_by(dropped, client_of(dropped))
    found = {"master": master, "logger": logger, "handler": handler}
    assert found == documented()
    figure(", ".join(f"{name}: {len(held)}" for name, held in found.items()) + " descriptors")


def test_the_launcher_stays_root_until_the_daemon_accepts(
    prepared: MakeDaemon, nobodys_folder: str
) -> None:
    """Who waits is who was asked; who comes up is nobody from the moment its pid is known."""
    asked = prepared(folder=nobodys_folder, daemon={"user": "nobody"})
    with starting(asked) as starter:
        pid = until_it_has_a_pid(asked)
        with stopped(pid):
            launcher = status_of(starter.pid)
            assert privileges_of(pid) == of_nobody()
        status, said = ended(starter)
    assert (status, set(launcher["Uid"].split())) == (0, {"0"})
    asked.adopt(said)


STUBBORN = [
    "--securebits=+no_setuid_fixup",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
]
"""How root can be started so that a change of user alone takes nothing away."""


@needs_setpriv
def test_capabilities_that_outlive_a_change_of_user_are_dropped(
    prepared: MakeDaemon, nobodys_folder: str
) -> None:
    """Whoever starts the daemon may have arranged for ways back: none is left."""
    asked = prepared(folder=nobodys_folder, daemon={"user": "nobody"})
    with starting(asked, "setpriv", *STUBBORN) as starter:
        status, said = ended(starter)
    assert status == 0, said
    asked.adopt(said)
    assert [privileges_of(pid) for pid in (asked.pid, asked.logger)] == [of_nobody()] * 2


needs_low_ports = pytest.mark.skipif(
    first_port_for_everybody() < 1024, reason="ports below 1024 are everybody's here"
)


def assert_is_refused(served: Daemon, *words: str) -> None:
    """Check that a reload is refused in these words, in the command's output and in the log."""
    ran = served.tetrad("reload")
    assert (ran.status, ran.out) == (78, "")
    (error,) = served.wait_for("server.reload_failed")["errors"]
    assert ran.err == (f"tetrad: not reloaded; the old configuration serves on\ntetrad: {error}\n")
    assert all(word in error for word in words), error
    with served.connect(host=PLACE).socket as client:
        client.sendall(b"time")
        assert ANSWER.fullmatch(client.recv(100))


@needs_low_ports
def test_a_low_port_is_refused_after_the_drop(dropped: Daemon) -> None:
    """A listener that only root could open is named, with the way out: a restart."""
    low = [{"address": PLACE, "port": port} for port in (80, 81)]
    dropped.configure(listen=low)
    assert_is_refused(dropped, f"{PLACE}:81", "no permission", "restart")


@pytest.mark.parametrize("change", [{"user": "daemon"}, {"user": None}, {"group": "daemon"}])
def test_another_user_is_refused_after_the_drop(
    dropped: Daemon, change: dict[str, str | None]
) -> None:
    """Who the daemon is cannot change while it runs."""
    dropped.configure(daemon=change)
    assert_is_refused(dropped, f"daemon.{next(iter(change))} cannot change", "restart")


def test_a_file_that_the_user_may_not_read_is_refused_after_the_drop(dropped: Daemon) -> None:
    """Root could read it at the start; the daemon cannot any more, and says who it is."""
    os.chmod(dropped.file, 0o600)
    assert_is_refused(dropped, dropped.file, "nobody", "permission")


def warnings_of(asked: Daemon, *arguments: str, **options: Any) -> str:  # noqa: ANN401
    """Run a command, which must succeed, and return its standard error as it is."""
    command = [sys.executable, "-m", "tetrad", *arguments, "-c", asked.file]
    ran = run(command, asked.environment, **options)
    assert ran.status == 0, ran.err
    return ran.err


def test_root_is_warned_that_it_serves_as_root(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """One line on standard error, of check, start and run; none once a user is named."""
    asked = prepared(folder=nobodys_folder)
    assert warnings_of(asked, "check") == warnings_of(asked, "start") == WARNING
    assert warnings_of(asked, "stop") == ""
    output = os.path.join(nobodys_folder, "output")
    asked.run(output)
    asked.wait_for("server.started", count=2)
    with open(output, encoding="utf-8") as file:
        assert file.read().count(WARNING) == 1
    asked.stop()
    for user in ("nobody", "root"):
        asked.configure(daemon={"user": user})
        assert warnings_of(asked, "check") == ""


def test_an_ordinary_user_is_not_warned(prepared: MakeDaemon, nobodys_folder: str) -> None:
    """Who is not root has nothing to drop."""
    asked = prepared(folder=nobodys_folder)
    assert warnings_of(asked, "check", user="nobody", group="nogroup", extra_groups=[]) == ""
