"""Data at a path that this process can read, for libraries that read only files."""

from __future__ import annotations

import contextlib
import os

from tetrad.system import memory_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def path_of(name: str, data: bytes) -> Iterator[str]:
    """Return a path at which this process can read the data, for the block. Raises OSError."""
    fd, path = memory_file.create_with(name, data), ""
    try:
        shown = f"/proc/self/fd/{fd}"
        if not os.path.exists(shown):
            os.close(fd)
            fd, path = memory_file.create_temporary(name)
            memory_file.fill(fd, data)
            shown = path
        yield shown
    finally:
        os.close(fd)
        if path:
            os.unlink(path)
