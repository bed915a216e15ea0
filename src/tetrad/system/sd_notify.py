"""Words to the service manager, as of sd_notify(3): one datagram each, to a Unix socket.

For the lean programs, so nothing but the C module is imported. It never blocks and never raises: a
manager that does not listen is no reason to serve worse.
"""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Notifier:
    """Speaks to `address`, which is what NOTIFY_SOCKET says: a path, or an abstract `@name`.

    Without an address everything is said to nobody.
    """

    __slots__ = ("_address",)

    def __init__(self, address: str | None) -> None:
        address = address or ""
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def is_heard(self) -> bool:
        """Whether there is somebody to speak to."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Say that clients are accepted; also the end of a reload."""
        self._send(["READY=1", _status(status)])

    def status(self, status: str) -> None:
        """Say in a line how things are, for `systemctl status`."""
        self._send([_status(status)])

    def watchdog(self) -> None:
        """Say that we are alive."""
        self._send(["WATCHDOG=1"])

    def reloading(self, monotonic: float) -> None:
        """Say that a reload begins, at this moment of the monotonic clock in seconds."""
        self._send(["RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1_000_000)}"])

    def stopping(self, status: str) -> None:
        """Say that this is the end."""
        self._send(["STOPPING=1", _status(status)])

    def _send(self, lines: Iterable[str]) -> None:
        if not self._address:
            return
        message = "\n".join(lines).encode("utf-8", "backslashreplace")
        try:
            # A socket for each: none is left for children to close, and there is nothing to mend.
            speaker = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
        except OSError:
            return
        try:
            speaker.sendto(message, _socket.MSG_DONTWAIT, self._address)
        except (OSError, ValueError):
            pass  # the manager is busy, gone, or was never there
        finally:
            speaker.close()


def _status(text: str) -> str:
    """Return the field of a status, which is one line."""
    return "STATUS=" + " ".join(text.splitlines())
