"""The log's file: lines are appended whole, and the file is found again where it belongs."""

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

OURS = b'{"timestamp":"2026-11-22T16:18:34.000000Z","level":"info"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "tetrad.log"


def opened(path: Path, *, repair: bool = False) -> LogFile:
    """Open a log file."""
    file = LogFile(str(path))
    assert file.open(repair=repair)
    return file


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_lines_are_appended(path: Path) -> None:
    """What is in the file stays, and each line gets its end."""
    path.write_bytes(b"before\n")
    file = opened(path)
    assert file.write([b"one", b"two"]) == 2
    assert file.write([]) == 0
    assert file.write([b"three"]) == 1
    assert path.read_bytes() == b"before\none\ntwo\nthree\n"


def test_a_write_that_is_cut_short_is_gone_on_with(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However little the system takes at a time, each byte is written once."""
    file, write = opened(path), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    assert file.write([b"one", b"two", b"three"]) == 3
    monkeypatch.undo()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_no_path_is_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a file, lines go to standard error, which is always open and never moved."""
    file = LogFile(None)
    assert file.open()
    assert not file.was_moved()
    assert file.write([b"hello"]) == 1
    assert capfd.readouterr().err == "hello\n"


def test_a_file_that_stays_was_not_moved(path: Path) -> None:
    """A file that is written to is where it was."""
    file = opened(path)
    file.write([b"one"])
    assert not file.was_moved()


def test_a_file_that_is_away_was_moved(path: Path) -> None:
    """A renamed file is noticed, and the new one at its place is written after opening."""
    file = opened(path)
    path.rename(path.with_suffix(".1"))
    assert file.was_moved()
    file.write([b"old"])
    assert file.open()
    file.write([b"new"])
    assert (path.with_suffix(".1").read_bytes(), path.read_bytes()) == (b"old\n", b"new\n")
    assert not file.was_moved()


def test_another_file_at_its_place_is_noticed(path: Path) -> None:
    """A file that was replaced is not the open one."""
    file = opened(path)
    path.rename(path.with_suffix(".1"))
    path.touch()
    assert file.was_moved()


def test_a_file_that_was_never_opened_counts_as_moved(path: Path) -> None:
    """Where opening failed at first, it is tried again."""
    folder = path / "later"
    file = LogFile(str(folder / "tetrad.log"))
    assert not file.open()
    assert file.write([b"lost"]) == 0
    folder.mkdir(parents=True)
    (folder / "tetrad.log").touch()
    assert file.was_moved()
    assert file.open()
    assert file.write([b"kept"]) == 1


def test_a_file_that_is_not_open_yet_takes_no_lines(path: Path) -> None:
    """Before a file is open, its lines go nowhere else."""
    assert LogFile(str(path)).write([b"one"]) == 0
    assert not path.exists()


def test_a_file_that_cannot_be_opened_anew_is_written_on(path: Path) -> None:
    """While the renamed file exists, lines go there rather than nowhere."""
    folder = path.parent / "logs"
    folder.mkdir()
    file = opened(folder / "tetrad.log")
    folder.rename(path.parent / "old")
    assert not file.open()
    assert file.write([b"one"]) == 1
    assert (path.parent / "old" / "tetrad.log").read_bytes() == b"one\n"


def test_a_deleted_file_is_not_written_on(path: Path) -> None:
    """Lines into a file that nobody can ever read would count as written, so they are not."""
    folder = path.parent / "logs"
    folder.mkdir()
    file = opened(folder / "tetrad.log")
    (folder / "tetrad.log").unlink()
    folder.rmdir()
    assert not file.open()
    assert file.write([b"one"]) == 0


def test_the_open_file_can_change(path: Path) -> None:
    """After a reload lines go to another file, and only there."""
    file = opened(path)
    file.move(str(path.with_suffix(".other")))
    file.write([b"one"])
    assert (path.read_bytes(), path.with_suffix(".other").read_bytes()) == (b"", b"one\n")
    assert not file.was_moved()


def test_the_log_can_go_to_standard_error_and_back(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard error is not closed when a file takes its place."""
    file = opened(path)
    file.move(None)
    file.write([b"one"])
    file.move(str(path))
    file.write([b"two"])
    os.write(2, b"three\n")
    assert path.read_bytes() == b"two\n"
    assert capfd.readouterr().err == "one\nthree\n"


def test_a_move_to_the_same_path_changes_nothing(path: Path) -> None:
    """A reload that leaves the file as it is does not open it anew."""
    file = opened(path)
    path.rename(path.with_suffix(".1"))
    file.move(str(path))
    file.write([b"one"])
    assert path.with_suffix(".1").read_bytes() == b"one\n"


def test_files_are_closed_when_others_take_their_place(path: Path) -> None:
    """However often the log is opened anew, it has one descriptor."""
    file = opened(path)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        file.open()
        file.move(None)
        file.move(str(path))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_full_disk_takes_no_lines() -> None:
    """What could not be written is not counted as written."""
    file = LogFile("/dev/full")
    assert file.open(repair=True)
    assert file.write([b"one", b"two"]) == 0


@pytest.mark.parametrize(("room", "whole"), [(3, 0), (4, 1), (6, 1), (8, 2)])
def test_a_disk_that_fills_up_tears_no_line(path: Path, room: int, whole: int) -> None:
    """The lines that are whole count, and the piece of the next one is taken back."""
    path.write_bytes(b"before\n")
    file = opened(path)
    with room_for(len(b"before\n") + room):
        assert file.write([b"one", b"two", b"end"]) == whole
    assert path.read_bytes() == b"before\n" + b"one\ntwo\n"[: whole * 4]
    assert file.write([b"next"]) == 1


def test_a_piece_that_cannot_be_taken_back_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file cannot be cut, nothing is raised, and what is whole still counts."""

    def refuse(_fd: int, _size: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "ftruncate", refuse)
    with room_for(6):
        assert opened(path).write([b"one", b"two"]) == 1
    assert path.read_bytes() == b"one\ntw"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OURS + b"\n", OURS + b"\n"),
        (OURS + b"\n" + OURS[:30], OURS + b"\n"),
        (OURS[:20], b""),
        (b"timestamp=2026 level=in", b""),
        (b"", b""),
        (b"somebody's notes", b"somebody's notes\n"),
        (b'{"time": 1', b'{"time": 1\n'),
        (OURS + b"\nnotes", OURS + b"\nnotes\n"),
        (b"x\n" * 5000 + OURS[:30], b"x\n" * 5000),
        (b"\n" + b"x" * 9000, b"\n" + b"x" * 9000 + b"\n"),
    ],
)
def test_a_torn_line_is_mended_at_the_start(path: Path, before: bytes, after: bytes) -> None:
    """A torn line of ours is taken away, and what is somebody else's gets an end."""
    path.write_bytes(before)
    opened(path, repair=True)
    assert path.read_bytes() == after


def test_opening_anew_mends_nothing(path: Path) -> None:
    """Only the start mends: later on it could be somebody who is still writing."""
    path.write_bytes(OURS[:20])
    assert LogFile(str(path)).open()
    assert path.read_bytes() == OURS[:20]


def test_a_new_file_obeys_the_umask_and_no_program_inherits_it(path: Path) -> None:
    """The file's mode is the operator's umask's business."""
    before = os.umask(0o027)
    try:
        opened(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
