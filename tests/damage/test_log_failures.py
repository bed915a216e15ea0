"""The log in trouble: serving goes on, nothing is torn, and what is missing is counted."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING

import pytest

from damage.log_accounting import Sessions, account
from processes import in_background, run, state_of, stopped, until
from tetrad.ipc.fds import EVENTS_READ

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from conftest import Figure, MakeDaemon
    from daemons import Daemon

MORE_THAN_THE_PIPE = 20_000
"""Commands whose events do not fit into the pipe to the logger, which has a megabyte."""

BATCH_BYTES = 1 << 18
"""What the logger reads at once, at most."""


BALLAST_BYTES = 32 << 10
"""What fills half of the small disk, until room is needed."""


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[str]:
    """Return a folder on a disk of its own, of 64 KiB."""
    folder = str(tmp_path / "disk")
    os.mkdir(folder)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tetrad-test", folder]
    ran = run(mount, dict(os.environ))
    if ran.status:
        pytest.skip(f"only root can mount a disk: {ran.err.strip()}")
    yield folder
    assert run(["umount", "--lazy", folder], dict(os.environ)).status == 0


def assert_adds_up(served: Daemon, sessions: Sessions, figure: Figure, *more: str) -> None:
    """End the daemon, and check that what was sent is what was written and reported lost."""
    served.stop()
    lines = served.events()
    for path in more:
        served.log_file = path
        lines = served.events() + lines
    told = account(lines)
    assert told.written + told.lost == sessions.sent
    assert told.unknown == 0
    figure(f"{sessions.sent} sent = {told.written} written + {told.lost} reported lost")


def lost(served: Daemon) -> int:
    """Return how many events were reported lost."""
    return account(served.events()).lost


@pytest.fixture
def cramped(small_disk: str, daemon: MakeDaemon) -> Daemon:
    """Return a daemon whose log has room for some hundred lines, and for more without ballast."""
    with open(f"{small_disk}/ballast", "wb") as file:
        file.write(bytes(BALLAST_BYTES))
    served = daemon(log={"file": f"{small_disk}/tetrad.log"})
    served.log_file = f"{small_disk}/tetrad.log"
    return served


def make_room(served: Daemon) -> None:
    """Throw the ballast away."""
    os.unlink(os.path.join(os.path.dirname(served.log_file), "ballast"))


def test_a_full_disk_costs_lines_that_are_counted(cramped: Daemon, figure: Figure) -> None:
    """Clients are served, the last whole line stays whole, and the gap has its number."""
    sessions = Sessions(cramped)
    for _ in range(10):
        sessions.one(commands=100)
    until(lambda: cramped.status()["log"]["lost"], "a loss")
    make_room(cramped)
    sessions.one()
    until(lambda: lost(cramped), "the report")
    assert cramped.status()["log"]["lost"] == lost(cramped)
    assert_adds_up(cramped, sessions, figure)


def test_a_report_of_a_loss_is_not_lost_itself(cramped: Daemon, figure: Figure) -> None:
    """A full pipe and then a full disk: what one could not take is in the account of the other."""
    sessions = Sessions(cramped)
    with stopped(cramped.logger):
        sessions.one(commands=MORE_THAN_THE_PIPE)
        sessions.one()
    until(lambda: waiting(cramped) == 0, "an empty pipe")
    sessions.one()
    until(lambda: cramped.status()["log"]["lost"], "a loss")
    make_room(cramped)
    sessions.one()
    until(lambda: lost(cramped), "the report")
    assert_adds_up(cramped, sessions, figure)


def test_a_folder_that_is_gone_costs_lines_that_are_counted(
    daemon: MakeDaemon, tmp_path: pathlib.Path, figure: Figure
) -> None:
    """What was written before stays written; once the folder is back, so is the log."""
    folder = tmp_path / "logs"
    folder.mkdir()
    served = daemon(log={"file": str(folder / "tetrad.log")})
    served.log_file = str(folder / "tetrad.log")
    sessions = Sessions(served)
    sessions.one(commands=10)
    served.wait_for("client.disconnected")
    kept = str(tmp_path / "kept.log")
    shutil.copy(served.log_file, kept)
    shutil.rmtree(folder)
    sessions.one(commands=20)
    until(lambda: served.status()["log"]["lost"] == 23, "a loss")
    folder.mkdir()
    sessions.one()
    assert served.wait_for("log.lost")["count"] == 23
    assert_adds_up(served, sessions, figure, kept)


def test_a_folder_that_is_moved_takes_the_log_along(
    daemon: MakeDaemon, tmp_path: pathlib.Path, figure: Figure
) -> None:
    """Where no new file can be made, the old one is written on: nothing is lost."""
    folder, away = tmp_path / "logs", tmp_path / "away"
    folder.mkdir()
    served = daemon(log={"file": str(folder / "tetrad.log")})
    sessions = Sessions(served)
    served.log_file = str(folder / "tetrad.log")
    sessions.one(commands=10)
    served.wait_for("client.disconnected")
    folder.rename(away)
    sessions.one(commands=10)
    served.log_file = str(away / "tetrad.log")
    served.wait_for("client.disconnected", count=2)
    folder.mkdir()
    sessions.one()
    served.log_file = str(folder / "tetrad.log")
    served.wait_for("log.reopened")
    assert_adds_up(served, sessions, figure, str(away / "tetrad.log"))
    assert lost(served) == 0


def test_a_permission_that_is_taken_costs_lines_that_are_counted(
    daemon: MakeDaemon, nobodys_folder: str, figure: Figure
) -> None:
    """A folder that an ordinary user's daemon may not write to any more is waited for."""
    folder = os.path.join(nobodys_folder, "logs")
    os.mkdir(folder, 0o777)
    os.chmod(folder, 0o777)  # noqa: S103 - nobody's, for a while
    log = {"file": f"{folder}/tetrad.log"}
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"}, log=log)
    served.log_file = f"{folder}/tetrad.log"
    sessions = Sessions(served)
    sessions.one(commands=10)
    served.wait_for("client.disconnected")
    kept = os.path.join(nobodys_folder, "kept.log")
    os.chmod(folder, 0o755)  # noqa: S103 - to be looked into by everybody
    shutil.copy(served.log_file, kept)
    os.unlink(served.log_file)
    sessions.one(commands=20)
    until(lambda: served.status()["log"]["lost"] == 23, "a loss")
    os.chmod(folder, 0o777)  # noqa: S103 - nobody's again
    assert served.wait_for("log.lost")["count"] == 23
    assert_adds_up(served, sessions, figure, kept)


def test_a_permission_that_is_taken_from_an_open_file_changes_nothing(
    daemon: MakeDaemon, nobodys_folder: str, figure: Figure
) -> None:
    """Who has the file open writes on, and an order to open it anew costs nothing."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"})
    sessions = Sessions(served)
    sessions.one(commands=10)
    served.wait_for("client.disconnected")
    os.chown(served.log_file, 0, 0)
    os.chmod(served.log_file, 0)
    served.signal(signal.SIGUSR1)
    sessions.one(commands=10)
    assert_adds_up(served, sessions, figure)
    assert lost(served) == 0


def test_a_file_that_is_moved_under_load_loses_nothing(daemon: MakeDaemon, figure: Figure) -> None:
    """However often it is moved, each event is in one of the files."""
    served = daemon()
    sessions = Sessions(served)
    moved = [f"{served.log_file}.{turn}" for turn in range(10)]
    with sessions.meanwhile(clients=4, commands=20):
        for path in moved:
            served.wait_for("client.disconnected")
            os.rename(served.log_file, path)
            with open(served.log_file, "a", encoding="ascii"):
                pass  # as logrotate does, who may be faster than the logger
    assert_adds_up(served, sessions, figure, *moved)


def test_a_file_that_is_truncated_under_load_is_never_torn(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """What is written after it begins at the beginning, with a whole line and no hole."""
    served = daemon()
    sessions = Sessions(served)
    with sessions.meanwhile(clients=4, commands=20):
        for _ in range(20):
            served.wait_for("client.disconnected")
            os.truncate(served.log_file, 0)
    until(lambda: not served.handlers, "the end of the sessions")
    log = until(lambda: said_all(served, sessions), "the last event")
    assert log["lost"] == 0
    served.stop()
    assert served.events()[-1]["event"] == "server.stopped"
    figure(f"{sessions.sent} sent = {log['written'] + 2} written, 20 truncations")


def said_all(served: Daemon, sessions: Sessions) -> dict[str, int]:
    """Return what is written and lost once that is all but the last two events of a daemon."""
    log: dict[str, int] = served.status()["log"]
    return log if log["written"] + log["lost"] == sessions.sent - 2 else {}


def test_a_logger_that_stands_still_is_not_waited_for(daemon: MakeDaemon, figure: Figure) -> None:
    """What finds no room in the pipe is counted, and clients have their answers meanwhile."""
    served = daemon()
    sessions = Sessions(served)
    with stopped(served.logger):
        for _ in range(4):
            sessions.one(commands=MORE_THAN_THE_PIPE // 4)
    assert until(lambda: lost(served), "the report")
    assert_adds_up(served, sessions, figure)


def test_a_logger_that_stands_still_when_the_daemon_stops_is_waited_for(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """Nobody is served any more, so there is time: for the last lines, and for what was lost."""
    served = daemon()
    sessions = Sessions(served)
    with stopped(served.logger):
        sessions.one(commands=MORE_THAN_THE_PIPE)
        for _ in range(30):  # short lines fill the corners
            sessions.one()
        stopping = in_background(served.stop)
        until(lambda: waits_in_poll(served.pid), "a master that waits for its logger")
    stopping.join()
    told = account(served.events())
    figure(f"{sessions.sent} sent = {told.written} written + {told.lost} reported lost")
    assert told.written + told.lost == sessions.sent
    assert told.lost > 0
    assert served.events()[-1]["event"] == "server.stopped"


def waits_in_poll(pid: int) -> bool:
    """Tell whether a process waits as a master does that serves nobody any more: not by epoll."""
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return file.read().startswith("poll_schedule_timeout")


def test_loggers_that_are_killed_when_the_daemon_stops_leave_the_lines_to_others(
    daemon: MakeDaemon,
) -> None:
    """What is in the pipe when the last logger is killed is written all the same."""
    served = daemon()
    client = served.served()
    until_idle(served)
    with stopped(served.logger):
        client.ask()
        stopping = in_background(served.stop)
        until(lambda: not os.path.exists(served.pidfile), "a master that waits for its logger")
        os.kill(served.logger, signal.SIGKILL)
    stopping.join()
    assert served.events("client.disconnected")
    assert served.events()[-1]["event"] == "server.stopped"


def test_an_order_to_a_logger_that_stands_still_is_kept_for_it(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """A log that is moved by a reload moves, though there was no room to say so at the time."""
    served = daemon()
    old, new = served.log_file, f"{served.folder}/new.log"
    sessions = Sessions(served)
    with stopped(served.logger):
        sessions.one(commands=MORE_THAN_THE_PIPE)
        served.configure(log={"file": new})
        assert served.tetrad("reload").status == 0
    served.log_file = new
    until(served.events, "a line in the new log")
    sessions.sent += 1  # the reload
    assert_adds_up(served, sessions, figure, old)


@pytest.mark.long
def test_a_logger_that_stands_still_for_ten_seconds(daemon: MakeDaemon, figure: Figure) -> None:
    """Sessions are served all the time, and every event is written or counted."""
    served = daemon()
    sessions = Sessions(served)
    with sessions.meanwhile(clients=8, commands=300):
        with stopped(served.logger):
            before = sessions.served
            time.sleep(10)  # what is tested is this time
            meanwhile = sessions.served - before
        until(lambda: lost(served), "the report")
    assert meanwhile > 8
    figure(f"{meanwhile} sessions in ten seconds")
    assert_adds_up(served, sessions, figure)


def test_a_logger_that_is_killed_with_empty_hands_loses_nothing(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """What is in the pipe is the next logger's; only the word of it says that it could be worse."""
    served = daemon()
    sessions = Sessions(served)
    for turn in range(1, 4):
        until_idle(served)
        with stopped(served.logger):
            sessions.one(commands=200)
            os.kill(served.logger, signal.SIGKILL)
        served.wait_for("log.lost", count=turn)
    assert assert_told(served, sessions, 3, figure) == 0


def waiting(served: Daemon) -> int:
    """Return how many bytes are in the pipe to the logger."""
    with open(f"/proc/{served.pid}/fd/{EVENTS_READ}", "rb", opener=without_waiting) as pipe:
        count: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
        return count


def without_waiting(path: str, flags: int) -> int:
    """Open a pipe, whoever may be at its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def until_idle(served: Daemon) -> None:
    """Wait until the logger has done its work, and waits for more."""
    until(lambda: not waiting(served) and state_of(served.logger) == "S", "an idle logger")


def until_less_than(served: Daemon, size: int) -> None:
    """Wait until the logger has read some of the pipe."""
    until(lambda: waiting(served) < size, "a read")


def assert_told(served: Daemon, sessions: Sessions, killed: int, figure: Figure) -> int:
    """Check that each kill of the logger was told; return how many events it has cost."""
    served.stop()
    told = account(served.events())
    missing = sessions.sent - told.written - told.lost
    figure(
        f"{sessions.sent} sent = {told.written} written + {told.lost} reported lost"
        f" + {missing} in the hands of {killed} loggers killed"
    )
    assert told.unknown == killed
    assert missing >= 0
    return missing


def most_in_a_batch(served: Daemon, sessions: Sessions) -> float:
    """Find out how many events, and some more, the logger may have read when it is killed."""
    until_idle(served)
    with stopped(served.logger):
        sessions.one(commands=500)
        until(lambda: not served.handlers, "the last event")
        size = waiting(served) / 503
    return 1.2 * BATCH_BYTES / size


def test_a_logger_that_is_killed_at_work_costs_one_batch(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """Wherever its last read ended, the next logger goes on with the next event."""
    served = daemon()
    sessions = Sessions(served)
    most = most_in_a_batch(served, sessions)
    killed = in_time = 0
    while in_time < 3:
        with stopped(served.logger):
            while waiting(served) < 2 * BATCH_BYTES:
                sessions.one(commands=200)
            size = waiting(served)
        until_less_than(served, size)
        os.kill(served.logger, signal.SIGKILL)
        killed += 1
        in_time += waiting(served) > 0  # where it is empty, its work was done
        served.wait_for("log.lost", count=killed)
        until_idle(served)
    assert assert_told(served, sessions, killed, figure) <= killed * most


def kill_at_work(served: Daemon) -> None:
    """Kill the logger once it has written something, and wait until the next one has told."""
    before = served.status()["log"]["written"]
    until(lambda: served.status()["log"]["written"] > before, "a line")
    told = unknown(served)
    os.kill(served.logger, signal.SIGKILL)
    until(lambda: unknown(served) > told, "the report")


def unknown(served: Daemon) -> int:
    """Return how many losses were reported without a number; the log is too long to be parsed."""
    with open(served.log_file, "rb") as file:
        return file.read().count(b'"count":null')


@pytest.mark.long
def test_loggers_that_are_killed_twenty_times_under_load(
    daemon: MakeDaemon, figure: Figure
) -> None:
    """Serving goes on, each line is whole, and each kill costs one batch and is told."""
    served = daemon()
    sessions = Sessions(served)
    most = most_in_a_batch(served, sessions)
    with sessions.meanwhile(clients=2, commands=50):
        for _ in range(20):
            kill_at_work(served)
    assert assert_told(served, sessions, 20, figure) <= 20 * most
