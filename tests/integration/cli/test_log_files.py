"""Files beside the log: those that programs compressed, and those that a hostile user put there."""

from __future__ import annotations

import gzip
import os
import pathlib
import shutil
import subprocess
import tracemalloc

import pytest

from tests.support.system_programs import require
from tests.support.written_logs import line, shown, write
from tetrad.cli import log_files
from tetrad.cli.log_reader import LogFilter, read

NOBODY = 65534


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    """Return the path of a log with one line."""
    path = str(tmp_path / "tetrad.log")
    write(path, line(9))
    return path


def unread(path: str) -> dict[str, list[str]]:
    """Return the names of the files that are not read, by the reason."""
    found: dict[str, list[str]] = {}
    for _ in read(path, LogFilter(), 10, following=False, report=found.update):
        pass
    return found


def compressed(text: bytes) -> bytes:
    """Return a short text as compress(1) writes it: codes of nine bits."""
    bits = sum(byte << 9 * index for index, byte in enumerate(text))
    return b"\x1f\x9d\x90" + bits.to_bytes((9 * len(text) + 7) // 8, "little")


@pytest.mark.parametrize(("program", "suffix"), [("zstd", "zst"), ("lz4", "lz4"), ("gzip", "Z")])
def test_programs_unpack_what_python_cannot(path: str, program: str, suffix: str) -> None:
    """For lack of the program, a damaged file, or events the file is skipped with the reason."""
    require(program)
    packed = pathlib.Path(f"{path}.1.{suffix}")

    def pack(text: bytes) -> bytes:
        if program == "gzip":
            return compressed(text)
        return subprocess.run([program, "-c"], input=text, capture_output=True, check=True).stdout

    packed.write_bytes(pack(line(0) + b"\n"))
    assert shown(path, 10) == [line(0), line(9)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PATH", "/nowhere")
        assert unread(path) == {f"{program} is not installed": [packed.name]}
    packed.write_bytes(pack(b"\x1b[2J"))
    assert unread(path) == {"no events of tetrad": [packed.name]}
    if program != "gzip":
        packed.write_bytes(pack(line(0) + b"\n")[:-5])
        assert list(unread(path).values()) == [[packed.name]]


def test_unpacking_takes_little_memory(path: str) -> None:
    """A file that unpacks to a thousand times its size is read in pieces, up to a limit."""
    with gzip.open(f"{path}.1.gz", "wb", compresslevel=1) as file:
        file.write(line(0) + b"\n")
        for _ in range(64):
            file.write((b"x" * 255 + b"\n") * 512)
    tracemalloc.start()
    try:
        assert len(shown(path, 10)) == 10
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(log_files, "_MAX_UNPACKED_BYTES", 500_000)
        (reason,) = unread(path)
    assert reason == "more than 4 GiB when unpacked; read in part"


def test_a_line_without_an_end_is_not_kept(path: str) -> None:
    """A sparse file, or one that unpacks to zeros."""
    with open(f"{path}.1", "wb") as file:
        file.write(line(0) + b"\n")
        file.truncate(1 << 40)
    with gzip.open(f"{path}.2.gz", "wb", compresslevel=1) as compressed_file:
        compressed_file.write(line(1) + b"\n")
        for _ in range(20):
            compressed_file.write(bytes(1 << 20))
    os.utime(f"{path}.2.gz", (1, 1))
    reason = "a line of more than 16 MiB; read in part"
    tracemalloc.start()
    try:
        assert unread(path) == {reason: ["tetrad.log.1", "tetrad.log.2.gz"]}
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_only_regular_files_are_read(path: str) -> None:
    """Opening a named pipe would wait for a writer, and reading a device might not end."""
    os.mkfifo(f"{path}.1")
    os.mkdir(f"{path}.2")
    os.symlink("/dev/zero", f"{path}.3")
    (names,) = unread(path).values()
    assert sorted(names) == ["tetrad.log.1", "tetrad.log.2", "tetrad.log.3"]
    for following in (False, True):
        with pytest.raises(OSError, match="not a regular file"):
            list(read(f"{path}.1", LogFilter(), 1, following=following))


def test_root_follows_no_link_of_another_user_to_a_file_of_root(
    path: str, nobodys_folder: str
) -> None:
    """But links of root, and links between files of one user."""
    secret = os.path.join(nobodys_folder, "secret")
    shutil.copy(path, secret)
    for name, owner, target_owner, is_read in (
        ("foreign", NOBODY, 0, False),
        ("own", NOBODY, NOBODY, True),
        ("root's", 0, NOBODY, True),
    ):
        link = os.path.join(nobodys_folder, name)
        os.symlink("secret", link)
        os.lchown(link, owner, owner)
        os.chown(secret, target_owner, target_owner)
        if is_read:
            assert shown(link, 1) == [line(9)]
        else:
            with pytest.raises(PermissionError, match="a link of the user with id 65534"):
                shown(link, 1)
