"""The state of a session that the fast path began and the slow path continues."""

from __future__ import annotations


class SessionProgress:
    """What has happened in a session before the slow path continues it.

    `started` and `last_command` are in seconds of the monotonic clock (`last_command` is None
    before the first command). `pending` is input that was read and not processed. `log_lines` are
    events that were not logged yet, `client.connected` and one line per answered command. A session
    that `is_closing` has sent its last answer; one with an `error` ends with it.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "commands",
        "error",
        "is_closing",
        "last_command",
        "log_lines",
        "pending",
        "started",
    )

    def __init__(self, started: float) -> None:
        self.started = started
        self.last_command: float | None = None
        self.log_lines = b""
        self.bytes_in = 0
        self.bytes_out = 0
        self.commands = 0
        self.pending = b""
        self.is_closing = False
        self.error: OSError | None = None
