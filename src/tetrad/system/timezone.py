"""The time zone of this process. The C library reads it once, but a machine's zone can change."""

from __future__ import annotations

import os
import time

_ZONE_FILE = "/etc/localtime"
"""The zone of a process without TZ. timedatectl(1) replaces it."""

_read_files: list[tuple[int, int, int] | None] = []
"""Which file the C library has read last as the machine's zone; empty at first."""


def follow_machine() -> None:
    """Have the C library read the machine's zone again if its file was replaced.

    tzset(3) alone does that with glibc only, and not if TZ names the file.
    """
    try:
        status = os.stat(_ZONE_FILE)
        file = status.st_dev, status.st_ino, status.st_mtime_ns
    except OSError:
        file = None  # UTC
    if _read_files != [file]:
        _read_files[:] = [file]
        in_zone("UTC0", "", 0)


def in_zone(zone: str, form: str, second: int) -> str:
    """Return a moment in a format of strftime(3), in a zone given as a value of TZ.

    For a process with one thread. `%s` depends on TZ too, so all of the format is written there.
    """
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        return time.strftime(form, time.localtime(second))
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
