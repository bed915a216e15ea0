"""Files in memory: what other processes of the same user cannot do to them."""

from __future__ import annotations

import mmap
import os

import pytest

from tetrad.system import memory_file

DATA = b"runtime configuration" * 1000


@pytest.fixture
def sealed() -> int:
    """Return another descriptor of a sealed file, as a process gets it through /proc."""
    return reopened(memory_file.create_with("test", DATA))


@pytest.fixture
def sized() -> int:
    """Return another descriptor of a file of 100 bytes."""
    return reopened(memory_file.create("test", 100))


def reopened(fd: int) -> int:
    """Open a file again for writing."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    os.close(fd)
    return again


def test_a_sealed_file_is_at_its_start() -> None:
    """Whoever gets the descriptor can read."""
    fd = memory_file.create_with("test", DATA)
    assert os.read(fd, 2 * len(DATA)) == DATA
    os.close(fd)


def test_a_sealed_file_cannot_be_written_to(sealed: int) -> None:
    """By write(2), by mmap(2), or beyond its end; it can be emptied."""
    with pytest.raises(PermissionError):
        os.write(sealed, b"x")
    with pytest.raises(PermissionError):
        mmap.mmap(sealed, 0)
    with pytest.raises(PermissionError):
        os.truncate(sealed, 2 * len(DATA))
    assert os.pread(sealed, 2 * len(DATA), 0) == DATA
    os.truncate(sealed, 0)
    with pytest.raises(PermissionError):
        os.write(sealed, b"x")
    os.close(sealed)


def test_the_size_of_a_file_that_is_written_to_is_sealed(sized: int) -> None:
    """Its contents are not."""
    assert os.pwrite(sized, b"x" * 100, 0) == 100
    for size in (0, 99, 101):
        with pytest.raises(PermissionError):
            os.truncate(sized, size)
    with pytest.raises(PermissionError):
        os.pwrite(sized, b"x", 100)
    assert os.fstat(sized).st_size == 100
    os.close(sized)


def test_a_file_that_is_replaced_keeps_its_number() -> None:
    """And is inherited by the next program."""
    fd = memory_file.create_with("test", b"old")
    memory_file.replace(fd, "test", DATA)
    assert os.read(fd, 2 * len(DATA)) == DATA
    assert os.get_inheritable(fd)
    os.close(fd)


def test_a_file_that_is_not_sealed_can_be_written_to() -> None:
    """An earlier release does that after a rollback."""
    fd = memory_file.create_with("test", DATA, is_sealed=False)
    assert os.write(fd, b"x") == 1
    os.close(fd)


def test_a_file_that_was_changed_before_it_was_sealed_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process can write between the two."""
    seal = memory_file._seal  # noqa: SLF001 - the moment between

    def meddle(fd: int, *seals: str) -> None:
        os.pwrite(fd, b"!", 5)
        seal(fd, *seals)

    monkeypatch.setattr(memory_file, "_seal", meddle)
    with pytest.raises(OSError, match="changed by another process"):
        memory_file.create_with("test", DATA)


def test_a_file_that_cannot_be_sealed_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary file, where there is no memfd_create(2)."""
    monkeypatch.delattr(os, "memfd_create")
    fd = memory_file.create_with("test", DATA)
    assert os.read(fd, 2 * len(DATA)) == DATA
    os.close(fd)
    fd = memory_file.create("test", 100)
    assert os.fstat(fd).st_size == 100
    os.close(fd)
