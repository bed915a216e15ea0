"""The log in trouble: clients are served, lines stay complete, and missing events are counted."""

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

from tests.support.log_accounting import Sessions, count_events
from tests.support.processes import in_background, run, state_of, stopped, until
from tetrad.ipc.fds import EVENTS_READ

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.support.daemons import Daemon
    from tests.support.fixtures import Figure, MakeDaemon

COMMANDS_TO_FILL_PIPE = 20_000
"""Commands whose events exceed the pipe to the logger, which holds a megabyte."""

BATCH_BYTES = 1 << 18
"""The most that the logger reads at once."""


BALLAST_BYTES = 32 << 10
"""Fills half of the small disk until space is needed."""


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[str]:
    """Return a folder on a 64 KiB tmpfs."""
    folder = str(tmp_path / "disk")
    os.mkdir(folder)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tetrad-test", folder]
    ran = run(mount, dict(os.environ))
    if ran.status:
        pytest.skip(f"run the tests as root that may mount a disk: {ran.err.strip()}")
    yield folder
    assert run(["umount", "--lazy", folder], dict(os.environ)).status == 0


def assert_all_accounted(served: Daemon, sessions: Sessions, figure: Figure, *more: str) -> None:
    """Stop the daemon, and check that events sent = written + reported lost."""
    served.stop()
    lines = served.events()
    for path in more:
        served.log_file = path
        lines = served.events() + lines
    counts = count_events(lines)
    assert counts.written + counts.lost == sessions.sent
    assert counts.unknown == 0
    figure(f"{sessions.sent} sent = {counts.written} written + {counts.lost} reported lost")


def lost(served: Daemon) -> int:
    """Return how many events were reported lost."""
    return count_events(served.events()).lost


@pytest.fixture
def daemon_on_small_disk(small_disk: str, daemon: MakeDaemon) -> Daemon:
    """Return a daemon whose log has room for some hundred lines, more without the ballast."""
    with open(f"{small_disk}/ballast", "wb") as file:
        file.write(bytes(BALLAST_BYTES))
    served = daemon(log={"file": f"{small_disk}/tetrad.log"})
    served.log_file = f"{small_disk}/tetrad.log"
    return served


def remove_ballast(served: Daemon) -> None:
    """Remove the ballast."""
    os.unlink(os.path.join(os.path.dirname(served.log_file), "ballast"))


def test_events_lost_to_a_full_disk_are_counted(
    daemon_on_small_disk: Daemon, figure: Figure
) -> None:
    """Clients are served, written lines stay complete, and lost events are reported."""
    sessions = Sessions(daemon_on_small_disk)
    for _ in range(10):
        sessions.run_one(commands=100)
    until(lambda: daemon_on_small_disk.status()["log"]["lost"], "a loss")
    until_idle(daemon_on_small_disk)  # else more lines fill the disk again
    remove_ballast(daemon_on_small_disk)
    sessions.run_one()
    until(lambda: lost(daemon_on_small_disk), "the report")
    assert daemon_on_small_disk.status()["log"]["lost"] == lost(daemon_on_small_disk)
    assert_all_accounted(daemon_on_small_disk, sessions, figure)


def test_a_loss_report_survives_a_full_disk(daemon_on_small_disk: Daemon, figure: Figure) -> None:
    """A full pipe, then a full disk: the losses of both are reported."""
    sessions = Sessions(daemon_on_small_disk)
    with stopped(daemon_on_small_disk.logger):
        sessions.run_one(commands=COMMANDS_TO_FILL_PIPE)
        sessions.run_one()
    until_idle(daemon_on_small_disk)
    sessions.run_one()
    until(lambda: daemon_on_small_disk.status()["log"]["lost"], "a loss")
    until_idle(daemon_on_small_disk)  # else more lines fill the disk again
    remove_ballast(daemon_on_small_disk)
    sessions.run_one()
    until(lambda: lost(daemon_on_small_disk), "the report")
    assert_all_accounted(daemon_on_small_disk, sessions, figure)


def test_events_lost_with_the_log_folder_are_counted(
    daemon: MakeDaemon, tmp_path: pathlib.Path, figure: Figure
) -> None:
    """Without its folder the log loses events; it continues when the folder is back."""
    folder = tmp_path / "logs"
    folder.mkdir()
    served = daemon(log={"file": str(folder / "tetrad.log")})
    served.log_file = str(folder / "tetrad.log")
    sessions = Sessions(served)
    sessions.run_one(commands=10)
    served.wait_for("client.disconnected")
    kept = str(tmp_path / "kept.log")
    shutil.copy(served.log_file, kept)
    shutil.rmtree(folder)
    sessions.run_one(commands=20)
    until(lambda: served.status()["log"]["lost"] == 23, "a loss")
    folder.mkdir()
    sessions.run_one()
    assert served.wait_for("log.lost")["count"] == 23
    assert_all_accounted(served, sessions, figure, kept)


def test_the_log_follows_a_moved_folder(
    daemon: MakeDaemon, tmp_path: pathlib.Path, figure: Figure
) -> None:
    """While no new file can be created, the open one is used, and nothing is lost."""
    folder, away = tmp_path / "logs", tmp_path / "away"
    folder.mkdir()
    served = daemon(log={"file": str(folder / "tetrad.log")})
    sessions = Sessions(served)
    served.log_file = str(folder / "tetrad.log")
    sessions.run_one(commands=10)
    served.wait_for("client.disconnected")
    folder.rename(away)
    sessions.run_one(commands=10)
    served.log_file = str(away / "tetrad.log")
    served.wait_for("client.disconnected", count=2)
    folder.mkdir()
    sessions.run_one()
    served.log_file = str(folder / "tetrad.log")
    served.wait_for("log.reopened")
    assert_all_accounted(served, sessions, figure, str(away / "tetrad.log"))
    assert lost(served) == 0


def test_events_lost_to_missing_permission_are_counted(
    daemon: MakeDaemon, nobodys_folder: str, figure: Figure
) -> None:
    """The log continues when the daemon's user may write to the folder again."""
    folder = os.path.join(nobodys_folder, "logs")
    os.mkdir(folder, 0o777)
    os.chmod(folder, 0o777)  # noqa: S103 - writable for the daemon, for a while
    log = {"file": f"{folder}/tetrad.log"}
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"}, log=log)
    served.log_file = f"{folder}/tetrad.log"
    sessions = Sessions(served)
    sessions.run_one(commands=10)
    served.wait_for("client.disconnected")
    kept = os.path.join(nobodys_folder, "kept.log")
    os.chmod(folder, 0o755)  # noqa: S103 - all users may read it
    shutil.copy(served.log_file, kept)
    os.unlink(served.log_file)
    sessions.run_one(commands=20)
    until(lambda: served.status()["log"]["lost"] == 23, "a loss")
    os.chmod(folder, 0o777)  # noqa: S103 - writable for the daemon again
    assert served.wait_for("log.lost")["count"] == 23
    assert_all_accounted(served, sessions, figure, kept)


def test_an_open_log_is_written_without_permission_to_open_it(
    daemon: MakeDaemon, nobodys_folder: str, figure: Figure
) -> None:
    """The logger keeps the open file; a request to reopen it loses nothing."""
    served = daemon(folder=nobodys_folder, daemon={"user": "nobody"})
    sessions = Sessions(served)
    sessions.run_one(commands=10)
    served.wait_for("client.disconnected")
    os.chown(served.log_file, 0, 0)
    os.chmod(served.log_file, 0)
    served.signal(signal.SIGUSR1)
    sessions.run_one(commands=10)
    assert_all_accounted(served, sessions, figure)
    assert lost(served) == 0


def test_a_log_moved_under_load_loses_nothing(daemon: MakeDaemon, figure: Figure) -> None:
    """Each event is in one of the files."""
    served = daemon()
    sessions = Sessions(served)
    moved = [f"{served.log_file}.{turn}" for turn in range(10)]
    with sessions.under_load(clients=4, commands=20):
        for path in moved:
            served.wait_for("client.disconnected")
            os.rename(served.log_file, path)
            with open(served.log_file, "a", encoding="ascii"):
                pass  # as logrotate does, possibly before the logger
    assert_all_accounted(served, sessions, figure, *moved)


def test_a_log_truncated_under_load_has_complete_lines(daemon: MakeDaemon, figure: Figure) -> None:
    """After a truncation the file starts with a complete line, without a hole."""
    served = daemon()
    sessions = Sessions(served)
    with sessions.under_load(clients=4, commands=20):
        for _ in range(20):
            served.wait_for("client.disconnected")
            os.truncate(served.log_file, 0)
    until(lambda: not served.handlers, "the end of the sessions")
    log = until(lambda: counters_when_complete(served, sessions), "the last event")
    assert log["lost"] == 0
    served.stop()
    assert served.events()[-1]["event"] == "server.stopped"
    figure(f"{sessions.sent} sent = {log['written'] + 2} written, 20 truncations")


def counters_when_complete(served: Daemon, sessions: Sessions) -> dict[str, int]:
    """Return the log counters once all events but the last two of a daemon are in them."""
    log: dict[str, int] = served.status()["log"]
    return log if log["written"] + log["lost"] == sessions.sent - 2 else {}


def test_clients_are_served_while_the_logger_is_stopped(daemon: MakeDaemon, figure: Figure) -> None:
    """Events that do not fit into the pipe are counted, and clients get their answers."""
    served = daemon(log={"session_rate": None})
    sessions = Sessions(served)
    with stopped(served.logger):
        for _ in range(4):
            sessions.run_one(commands=COMMANDS_TO_FILL_PIPE // 4)
    assert until(lambda: lost(served), "the report")
    assert_all_accounted(served, sessions, figure)


def test_a_stop_waits_for_a_stopped_logger(daemon: MakeDaemon, figure: Figure) -> None:
    """At the end the master waits for the last lines and for the count of lost events."""
    served = daemon()
    sessions = Sessions(served)
    with stopped(served.logger):
        shrink_pipe(served)
        for _ in range(30):
            sessions.run_one()
        stopping = in_background(served.stop)
        until(lambda: is_in_poll(served.pid), "the master to wait for its logger")
    stopping.join()
    counts = count_events(served.events())
    figure(f"{sessions.sent} sent = {counts.written} written + {counts.lost} reported lost")
    assert counts.written + counts.lost == sessions.sent
    assert counts.lost > 0
    assert served.events()[-1]["event"] == "server.stopped"


def is_in_poll(pid: int) -> bool:
    """Tell whether a process waits in poll(2), as a stopping master does, not in epoll."""
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return file.read().startswith("poll_schedule_timeout")


def test_a_logger_killed_during_a_stop_is_replaced(
    daemon: MakeDaemon,
) -> None:
    """What is in the pipe when the last logger is killed is written by another one."""
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


def test_a_stopped_logger_gets_its_new_settings_later(daemon: MakeDaemon, figure: Figure) -> None:
    """A reload moves the log even if the pipe had no room for the new settings then."""
    served = daemon()
    old, new = served.log_file, f"{served.folder}/new.log"
    sessions = Sessions(served)
    with stopped(served.logger):
        shrink_pipe(served)
        for _ in range(30):
            sessions.run_one()
        served.configure(log={"file": new})
        assert served.tetrad("reload").status == 0
    served.log_file = new
    until(served.events, "a line in the new log")
    sessions.sent += 1  # the reload
    assert_all_accounted(served, sessions, figure, old)


@pytest.mark.long
def test_a_logger_stopped_for_ten_seconds(daemon: MakeDaemon, figure: Figure) -> None:
    """Sessions are served all the time, and every event is written or counted."""
    served = daemon()
    sessions = Sessions(served)
    with sessions.under_load(clients=8, commands=300):
        with stopped(served.logger):
            before = sessions.served
            time.sleep(10)  # the time under test
            meanwhile = sessions.served - before
        until(lambda: lost(served), "the report")
    assert meanwhile > 8
    figure(f"{meanwhile} sessions in ten seconds")
    assert_all_accounted(served, sessions, figure)


def test_an_idle_logger_that_is_killed_loses_nothing(daemon: MakeDaemon, figure: Figure) -> None:
    """The next logger writes what is in the pipe; a loss of unknown size is reported."""
    served = daemon()
    sessions = Sessions(served)
    for turn in range(1, 4):
        until_idle(served)
        with stopped(served.logger):
            sessions.run_one(commands=200)
            os.kill(served.logger, signal.SIGKILL)
        served.wait_for("log.lost", count=turn)
    assert assert_kills_reported(served, sessions, 3, figure) == 0


def bytes_in_pipe(served: Daemon) -> int:
    """Return how many bytes are in the pipe to the logger."""
    with open(f"/proc/{served.pid}/fd/{EVENTS_READ}", "rb", opener=nonblocking) as pipe:
        count: int = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
        return count


def shrink_pipe(served: Daemon) -> None:
    """Leave room for a single page of events in the pipe to the logger."""
    with open(f"/proc/{served.pid}/fd/{EVENTS_READ}", "rb", opener=nonblocking) as pipe:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)


def nonblocking(path: str, flags: int) -> int:
    """Open a pipe without blocking."""
    return os.open(path, flags | os.O_NONBLOCK)


def until_idle(served: Daemon) -> None:
    """Wait until the logger has read everything and waits for more."""
    until(lambda: not bytes_in_pipe(served) and state_of(served.logger) == "S", "an idle logger")


def until_less_than(served: Daemon, size: int) -> None:
    """Wait until the logger has read from the pipe."""
    until(lambda: bytes_in_pipe(served) < size, "a read")


def assert_kills_reported(served: Daemon, sessions: Sessions, killed: int, figure: Figure) -> int:
    """Check that each kill of the logger was reported; return how many events were lost by it."""
    served.stop()
    counts = count_events(served.events())
    missing = sessions.sent - counts.written - counts.lost
    figure(
        f"{sessions.sent} sent = {counts.written} written + {counts.lost} reported lost"
        f" + {missing} lost with {killed} killed loggers"
    )
    assert counts.unknown == killed
    assert missing >= 0
    return missing


def events_per_batch(served: Daemon, sessions: Sessions) -> float:
    """Return how many events the logger can have read when it is killed, rounded up."""
    until_idle(served)
    with stopped(served.logger):
        sessions.run_one(commands=500)
        until(lambda: not served.handlers, "the last event")
        size = bytes_in_pipe(served) / 503
    return 1.2 * BATCH_BYTES / size


def test_a_busy_logger_that_is_killed_loses_one_batch(daemon: MakeDaemon, figure: Figure) -> None:
    """Wherever its last read ended, the next logger continues with the next event."""
    served = daemon(log={"session_rate": None})
    sessions = Sessions(served)
    most = events_per_batch(served, sessions)
    killed = in_time = 0
    while in_time < 3:
        with stopped(served.logger):
            sessions.run_one(commands=COMMANDS_TO_FILL_PIPE // 4)
            while bytes_in_pipe(served) < 1.25 * BATCH_BYTES:  # with other events
                sessions.run_one()
            size = bytes_in_pipe(served)
        until_less_than(served, size)
        os.kill(served.logger, signal.SIGKILL)
        killed += 1
        in_time += bytes_in_pipe(served) > 0  # if the pipe is empty, the kill came too late
        served.wait_for("log.lost", count=killed)
        until_idle(served)
    assert assert_kills_reported(served, sessions, killed, figure) <= killed * most


def kill_at_work(served: Daemon) -> None:
    """Kill the logger after it has written, and wait until the next one has reported that."""
    before = served.status()["log"]["written"]
    until(lambda: served.status()["log"]["written"] > before, "a line")
    counts = unknown(served)
    os.kill(served.logger, signal.SIGKILL)
    until(lambda: unknown(served) > counts, "the report")


def unknown(served: Daemon) -> int:
    """Return how many losses were reported without a count; the log is too long to parse."""
    with open(served.log_file, "rb") as file:
        return file.read().count(b'"count":null')


@pytest.mark.long
def test_twenty_killed_loggers_under_load(daemon: MakeDaemon, figure: Figure) -> None:
    """Clients are served, lines stay complete, and each kill loses one batch at most."""
    served = daemon()
    sessions = Sessions(served)
    most = events_per_batch(served, sessions)
    with sessions.under_load(clients=2, commands=50):
        for _ in range(20):
            kill_at_work(served)
    assert assert_kills_reported(served, sessions, 20, figure) <= 20 * most
