"""Close the descriptors of this process that are open, and try no others.

The limit of open files can be a billion. close_range(2) closes them all at once, but without it
os.closerange tries each number.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_FOLDER = "/proc/self/fd"
_WITHOUT_PROC = range(1 << 16)
"""The descriptors to try where /proc does not show those that are open."""


def close_all_but(exclude: Collection[int]) -> None:
    """Close all descriptors but those in `exclude`."""
    numbers: Iterable[int]
    try:
        numbers = [int(name) for name in os.listdir(_FOLDER)]
    except OSError:
        numbers = _WITHOUT_PROC
    for fd in numbers:
        if fd not in exclude:
            try:
                os.close(fd)
            except OSError:
                pass  # that of the folder itself, or not open
