"""Files in memory: memfd_create(2), or an unlinked temporary file where that cannot be had.

Some interpreters are built without os.memfd_create, and some sandboxes refuse the system call.
"""

from __future__ import annotations

import contextlib
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = ("/dev/shm", "/run", "/tmp", "/var/tmp")  # noqa: S108 - the file has no name for long
"""Where a temporary file may be, those in memory first."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create(name: str) -> int:
    """Return the descriptor of an empty file that has no path. Raises OSError."""
    try:
        return os.memfd_create(name)
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
    fd, path = _temporary(name)
    os.unlink(path)
    return fd


@contextlib.contextmanager
def path_of(name: str, data: bytes) -> Iterator[str]:
    """Return a path at which this process can read the data, for the block. Raises OSError."""
    fd, path = create(name), ""
    try:
        shown = f"/proc/self/fd/{fd}"
        if not os.path.exists(shown):
            os.close(fd)
            fd, path = _temporary(name)
            shown = path
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        yield shown
    finally:
        os.close(fd)
        if path:
            os.unlink(path)


def _temporary(name: str) -> tuple[int, str]:
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
