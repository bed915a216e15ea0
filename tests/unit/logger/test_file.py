"""The log file: complete lines are appended, and a file that was moved is opened again."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from tetrad.logger.file import LogFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN_LINE = b'{"timestamp":"2026-11-22T16:18:34.000000Z","level":"info"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the log."""
    return tmp_path / "tetrad.log"


def opened(path: Path, *, repair: bool = False) -> LogFile:
    """Return a log file that is open."""
    file = LogFile(str(path))
    assert file.open(repair=repair)
    return file


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files to `size` bytes, to imitate a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_lines_are_appended(path: Path) -> None:
    """The content of the file is kept, and each line gets a line feed."""
    path.write_bytes(b"before\n")
    file = opened(path)
    assert file.write([b"one", b"two"]) == 2
    assert file.write([]) == 0
    assert file.write([b"three"]) == 1
    assert path.read_bytes() == b"before\none\ntwo\nthree\n"


def test_a_short_write_is_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is written once, however little each write(2) accepts."""
    file, write = opened(path), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    assert file.write([b"one", b"two", b"three"]) == 3
    monkeypatch.undo()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_no_path_is_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard error is always open and never moved."""
    file = LogFile(None)
    assert file.open()
    assert not file.was_moved()
    assert file.write([b"hello"]) == 1
    assert capfd.readouterr().err == "hello\n"


def test_a_file_at_its_path_was_not_moved(path: Path) -> None:
    """Writing to a file does not change that."""
    file = opened(path)
    file.write([b"one"])
    assert not file.was_moved()


def test_a_renamed_file_is_detected(path: Path) -> None:
    """After it is opened again, lines go to the new file at the path."""
    file = opened(path)
    path.rename(path.with_suffix(".1"))
    assert file.was_moved()
    file.write([b"old"])
    assert file.open()
    file.write([b"new"])
    assert (path.with_suffix(".1").read_bytes(), path.read_bytes()) == (b"old\n", b"new\n")
    assert not file.was_moved()


def test_a_replaced_file_is_detected(path: Path) -> None:
    """Another file at the path is not the open one."""
    file = opened(path)
    path.rename(path.with_suffix(".1"))
    path.touch()
    assert file.was_moved()


def test_a_file_that_was_never_opened_counts_as_moved(path: Path) -> None:
    """If opening fails at first, it is retried."""
    folder = path / "later"
    file = LogFile(str(folder / "tetrad.log"))
    assert not file.open()
    assert file.write([b"lost"]) == 0
    folder.mkdir(parents=True)
    (folder / "tetrad.log").touch()
    assert file.was_moved()
    assert file.open()
    assert file.write([b"kept"]) == 1


def test_a_file_that_is_not_open_writes_no_lines(path: Path) -> None:
    """The lines are written to no other file either."""
    assert LogFile(str(path)).write([b"one"]) == 0
    assert not path.exists()


def test_a_file_that_cannot_be_reopened_stays_in_use(path: Path) -> None:
    """While the renamed file exists, lines go there."""
    folder = path.parent / "logs"
    folder.mkdir()
    file = opened(folder / "tetrad.log")
    folder.rename(path.parent / "old")
    assert not file.open()
    assert file.write([b"one"]) == 1
    assert (path.parent / "old" / "tetrad.log").read_bytes() == b"one\n"


def test_a_deleted_file_is_not_written(path: Path) -> None:
    """No process can ever read its lines, so they must not count as written."""
    folder = path.parent / "logs"
    folder.mkdir()
    file = opened(folder / "tetrad.log")
    (folder / "tetrad.log").unlink()
    folder.rmdir()
    assert not file.open()
    assert file.write([b"one"]) == 0


def test_the_path_can_change(path: Path) -> None:
    """After a reload, lines go to the other file only."""
    file = opened(path)
    file.move(str(path.with_suffix(".other")))
    file.write([b"one"])
    assert (path.read_bytes(), path.with_suffix(".other").read_bytes()) == (b"", b"one\n")
    assert not file.was_moved()


def test_the_log_can_go_to_standard_error_and_back(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard error is not closed when a file replaces it."""
    file = opened(path)
    file.move(None)
    file.write([b"one"])
    file.move(str(path))
    file.write([b"two"])
    os.write(2, b"three\n")
    assert path.read_bytes() == b"two\n"
    assert capfd.readouterr().err == "one\nthree\n"


def test_a_move_to_the_same_path_changes_nothing(path: Path) -> None:
    """A reload with the same path does not open the file again."""
    file = opened(path)
    path.rename(path.with_suffix(".1"))
    file.move(str(path))
    file.write([b"one"])
    assert path.with_suffix(".1").read_bytes() == b"one\n"


def test_replaced_files_are_closed(path: Path) -> None:
    """The log has one descriptor, however often it is opened."""
    file = opened(path)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        file.open()
        file.move(None)
        file.move(str(path))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_full_disk_writes_no_lines() -> None:
    """Lines that fail are not counted as written."""
    file = LogFile("/dev/full")
    assert file.open(repair=True)
    assert file.write([b"one", b"two"]) == 0


@pytest.mark.parametrize(("room", "complete"), [(3, 0), (4, 1), (6, 1), (8, 2)])
def test_a_disk_that_fills_leaves_no_partial_line(path: Path, room: int, complete: int) -> None:
    """The complete lines count, and the partial one is removed."""
    path.write_bytes(b"before\n")
    file = opened(path)
    with file_size_limit(len(b"before\n") + room):
        assert file.write([b"one", b"two", b"end"]) == complete
    assert path.read_bytes() == b"before\n" + b"one\ntwo\n"[: complete * 4]
    assert file.write([b"next"]) == 1


def test_a_partial_line_that_cannot_be_removed_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file cannot be truncated, nothing is raised, and the complete lines count."""

    def refuse(_fd: int, _size: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "ftruncate", refuse)
    with file_size_limit(6):
        assert opened(path).write([b"one", b"two"]) == 1
    assert path.read_bytes() == b"one\ntw"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OWN_LINE + b"\n", OWN_LINE + b"\n"),
        (OWN_LINE + b"\n" + OWN_LINE[:30], OWN_LINE + b"\n"),
        (OWN_LINE[:20], b""),
        (b"timestamp=2026 level=in", b""),
        (b"", b""),
        (b"other notes", b"other notes\n"),
        (b'{"time": 1', b'{"time": 1\n'),
        (OWN_LINE + b"\nnotes", OWN_LINE + b"\nnotes\n"),
        (b"x\n" * 5000 + OWN_LINE[:30], b"x\n" * 5000),
        (b"\n" + b"x" * 9000, b"\n" + b"x" * 9000 + b"\n"),
    ],
)
def test_a_partial_line_is_repaired_at_the_start(path: Path, before: bytes, after: bytes) -> None:
    """A partial line of the log is removed; other text gets a line feed."""
    path.write_bytes(before)
    opened(path, repair=True)
    assert path.read_bytes() == after


def test_reopening_repairs_nothing(path: Path) -> None:
    """Only the start repairs: later, another process may still be writing the line."""
    path.write_bytes(OWN_LINE[:20])
    assert LogFile(str(path)).open()
    assert path.read_bytes() == OWN_LINE[:20]


def test_a_new_file_has_the_mode_of_the_umask(path: Path) -> None:
    """The operator sets the umask."""
    before = os.umask(0o027)
    try:
        opened(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
