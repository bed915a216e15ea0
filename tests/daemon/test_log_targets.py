"""A log that is no plain file, or on a disk that takes nothing; and pidfiles without locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import run_here
from tests.support.processes import run
from tetrad.launch import pidfile

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    from tests.support.fixtures import MakeDaemon

NO_STREAM = "the daemon has no such terminal or stream"
WAY_OUT = "name a file, or use tetrad run with log.file: null"
NO_SPACE = "no space left on device; free space on its file system"


def block_device() -> str:
    """Return the path of a block device."""
    with os.scandir("/dev") as entries:
        found = [one.path for one in entries if stat.S_ISBLK(one.stat().st_mode)]
    return found[0] if found else pytest.skip("there is no block device")


def test_what_takes_no_log_is_refused(prepared: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """By check, before anything is written to it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "log")
    for path, problem in (
        ("/dev/full", "no space left on device; name another path"),
        (block_device(), "is a block device; name another path"),
        (f"{tmp_path}/socket", "is a socket; name another path"),
        (f"{tmp_path}/folder", "is a directory; name a file"),
        (f"{tmp_path}/link", f"no such file or directory; create the directory {tmp_path}/missing"),
    ):
        ran = run_here(prepared(log={"file": path}), "check")
        if "permission denied" not in ran.err:  # a user's block device
            assert (ran.status, ran.err) == (78, f"tetrad: log.file: {path}: {problem}\n")


@pytest.mark.parametrize("path", ["/dev/tty", "/dev/stdout", "/proc/self/fd/2", "link"])
def test_a_daemon_has_no_standard_streams(
    prepared: MakeDaemon, tmp_path: pathlib.Path, path: str
) -> None:
    """Its own lead nowhere. `tetrad run` has the standard error of its terminal or container."""
    if path == "link":
        path = str(tmp_path / "link")
        os.symlink("/dev/stdout", path)
    asked = prepared(log={"file": path})
    ran = asked.tetrad("start")
    assert ran.status == 1
    message = f"tetrad: log.file: {path}: {NO_STREAM}; {WAY_OUT}\n"
    assert message in ran.err
    ran = run_here(asked, "check")
    assert ran.err == ("" if path.endswith("/2") else message)


def test_a_log_can_be_a_device_a_terminal_or_a_pipe(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """The null device, a terminal that exists, and a named pipe that is read."""
    terminal, other_end = os.openpty()
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    read_pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path, fd in (("/dev/null", None), (os.ttyname(other_end), terminal), (pipe, read_pipe)):
        served = prepared(log={"file": path})
        assert served.tetrad("start").status == 0
        assert served.tetrad("stop").status == 0
        text = b""
        while fd is not None and b"server.stopped" not in text:
            text += os.read(fd, 4096)
    for fd in (terminal, other_end, read_pipe):
        os.close(fd)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[Callable[..., None]]:
    """Return a function that makes `tmp_path/disk` a small file system with mount options."""
    folder = str(tmp_path / "disk")
    os.mkdir(folder)
    environment = dict(os.environ)

    def mount(*options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=64k", *options)), "test", folder]
        ran = run(command, environment)
        if ran.status:
            pytest.skip(f"run the tests as root that may mount a disk: {ran.err.strip()}")

    yield mount
    run(["umount", "--lazy", folder], environment)


def fill(folder: str) -> None:
    """Write to a file until its file system is full."""
    with open(f"{folder}/ballast", "wb", 0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("is_there", [True, False], ids=["log", "no log"])
def test_a_full_disk_is_found_before_a_stop(
    daemon: MakeDaemon,
    disk: Callable[..., None],
    tmp_path: pathlib.Path,
    *,
    is_there: bool,
) -> None:
    """A restart stops nothing then; a daemon that runs can be reloaded."""
    disk()
    log = str(tmp_path / "disk" / "tetrad.log")
    served = daemon(log={"file": log})
    fill(os.path.dirname(log))
    if not is_there:
        os.unlink(log)
    ran = served.tetrad("restart")
    assert ran.status != 0
    assert f"log.file: {log}: {NO_SPACE}\n" in ran.err
    assert served.tetrad("reload").status == 0
    os.truncate(f"{tmp_path}/disk/ballast", 0)


def test_a_full_or_read_only_disk_for_the_pidfile_is_named(
    prepared: MakeDaemon, disk: Callable[..., None], tmp_path: pathlib.Path
) -> None:
    """And one for the log."""
    disk()
    folder = str(tmp_path / "disk")
    asked = prepared(daemon={"pidfile": f"{folder}/tetrad.pid"}, log={"file": f"{folder}/log"})
    fill(folder)
    ran = run_here(asked, "check")
    assert ran.err.splitlines() == [
        f"tetrad: daemon.pidfile: {folder}/tetrad.pid: {NO_SPACE}",
        f"tetrad: log.file: {folder}/log: {NO_SPACE}",
    ]
    disk("remount", "ro")
    ran = run_here(asked, "check")
    assert ran.status == 78
    way_out = "read-only file system; name another path, or make the file system writable"
    assert ran.err.splitlines() == [
        f"tetrad: daemon.pidfile: {folder}/tetrad.pid: {way_out}",
        f"tetrad: log.file: {folder}/log: {way_out}",
    ]


def test_an_exhausted_quota_is_named(prepared: MakeDaemon) -> None:
    """The kernel reports it when something is written."""
    asked = prepared()
    write = os.write

    def refuse(fd: int, data: bytes) -> int:
        if data == bytes(4096):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return write(fd, data)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "write", refuse)
        ran = run_here(asked, "check")
    assert ran.status == 78
    assert f"log.file: {asked.log_file}: disk quota exceeded; raise the quota of user" in ran.err


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_a_file_system_without_locks_is_named(prepared: MakeDaemon, call: str) -> None:
    """As some network file systems are. The log needs none."""
    asked = prepared()

    def refuse(*_: Any) -> None:  # noqa: ANN401
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fcntl, call, refuse)
        ran = run_here(asked, "check")
        with pytest.raises(OSError, match="refuses locks") as error:
            take_locks(asked.pidfile)
    text = "the file system refuses locks (no locks available)"
    way_out = "name a path on another file system"
    assert ran.status == 78
    assert ran.err == f"tetrad: daemon.pidfile: {asked.pidfile}: {text}; {way_out}\n"
    assert (error.value.filename, error.value.strerror) == (asked.pidfile, text)


def take_locks(path: str) -> None:
    """Claim a pidfile as a start does."""
    with pidfile.start_lock(path) as fd:
        pidfile.claim(fd)
