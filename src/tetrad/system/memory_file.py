"""Files in memory: memfd_create(2), or an unlinked temporary file where that cannot be had.

Some interpreters are built without os.memfd_create, and some sandboxes refuse the system call.

Every process of the same user can open such a file through /proc, unless something else prevents
it. So what is only read is sealed against writes, and what is written has a sealed size
(F_ADD_SEALS in fcntl(2)). Temporary files cannot be sealed.
"""

from __future__ import annotations

import errno
import fcntl
import os

FOLDERS = ("/dev/shm", "/run", "/tmp", "/var/tmp")  # noqa: S108 - the file has no name for long
"""Where a temporary file may be, those in memory first."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(name: str, size: int) -> int:
    """Return the descriptor of a file of zeros, without a path, that keeps its size.

    Raises OSError.
    """
    fd = _without_path(name)
    os.ftruncate(fd, size)
    _seal(fd, "F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_SEAL")
    return fd


def create_with(name: str, data: bytes, *, is_sealed: bool = True) -> int:
    """Return the descriptor of a file without a path that has these contents, or none.

    If it is sealed, it can be emptied, which frees its memory, but not be written to. Raises
    OSError.
    """
    fd = _without_path(name)
    try:
        fill(fd, data, is_sealed=is_sealed)
    except OSError:
        os.close(fd)
        raise
    return fd


def replace(fd: int, name: str, data: bytes, *, is_sealed: bool = True) -> None:
    """Put a new file, as `create_with` returns it, at the number of an open one.

    It is inheritable. Raises OSError before anything is replaced.
    """
    new = create_with(name, data, is_sealed=is_sealed)
    os.dup2(new, fd)
    os.close(new)


def fill(fd: int, data: bytes, *, is_sealed: bool = True) -> None:
    """Write the content of an empty file, and seal it. Raises OSError."""
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    if is_sealed:
        _seal(fd, "F_SEAL_WRITE", "F_SEAL_GROW", "F_SEAL_SEAL")
    if os.pread(fd, len(data) + 1, 0) != data:
        raise OSError(errno.EIO, "a file in memory was changed by another process")
    os.lseek(fd, 0, os.SEEK_SET)


def create_temporary(name: str) -> tuple[int, str]:
    """Create a file that only this user can open; return its descriptor and its path."""
    for folder in FOLDERS:
        path = os.path.join(folder, f".tetrad-{name}-{os.urandom(8).hex()}")
        try:
            return os.open(path, _FLAGS, 0o600), path
        except OSError:
            continue
    where = ", ".join(FOLDERS)
    text = f"no memfd_create(2), and no temporary file can be created in {where}"
    raise OSError(errno.ENOSYS, text)


def _without_path(name: str) -> int:
    """Return the descriptor of an empty file that has no path. Raises OSError."""
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
    fd, path = create_temporary(name)
    os.unlink(path)
    return fd


def _seal(fd: int, *seals: str) -> None:
    """Add seals to a file, unless it is one that cannot have them."""
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, sum(getattr(fcntl, seal) for seal in seals))
    except (AttributeError, OSError):
        pass
