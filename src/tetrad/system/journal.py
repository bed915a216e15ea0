"""The systemd journal: whether a descriptor leads to it, and the priorities of its lines.

systemd(1) names the device and the inode of the stream in JOURNAL_STREAM (systemd.exec(5)). A line
there may begin with its priority (sd-daemon(3)); the journal adds the time.
"""

from __future__ import annotations

import os

PRIORITIES = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>"}
"""The beginning of a line by its level."""


def is_journal(fd: int) -> bool:
    """Tell whether a descriptor is the stream to the journal that systemd(1) has opened."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
