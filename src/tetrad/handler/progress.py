"""The state of a session that the fast path began and the slow path continues."""

from __future__ import annotations


class SessionProgress:
    """A session so far. It goes on, unless it `is_over` but for the goodbye or has met an `error`.

    `since` is in seconds of the monotonic clock; `data` was read, and nothing is done about it yet;
    `told` is what the log is to be told: that it has begun, and of the commands, the last of which
    was about `last_command`.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "commands",
        "data",
        "error",
        "is_over",
        "last_command",
        "since",
        "told",
    )

    def __init__(self, since: float) -> None:
        self.since = since
        self.last_command: float | None = None
        self.told = b""
        self.bytes_in = 0
        self.bytes_out = 0
        self.commands = 0
        self.data = b""
        self.is_over = False
        self.error: OSError | None = None
