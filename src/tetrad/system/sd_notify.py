"""Notifications to the service manager, as in sd_notify(3): datagrams to a Unix socket.

Sending never blocks and never raises: a service manager that does not read must not affect the
service. Imports one C module, because the master loads it.
"""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Notifier:
    """Sends notifications to `address`, the value of NOTIFY_SOCKET: a path or `@` and a name.

    Without an address it does nothing.
    """

    __slots__ = ("_address",)

    def __init__(self, address: str | None) -> None:
        address = address or ""
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @property
    def is_enabled(self) -> bool:
        """Whether there is an address."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Notify that the daemon accepts clients, or that a reload has ended."""
        self._send(["READY=1", _status(status)])

    def status(self, status: str) -> None:
        """Set the status line of `systemctl status`."""
        self._send([_status(status)])

    def watchdog(self) -> None:
        """Reset the watchdog timer."""
        self._send(["WATCHDOG=1"])

    def reloading(self, monotonic: float) -> None:
        """Notify that a reload begins at `monotonic`, in seconds of the monotonic clock."""
        self._send(["RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1_000_000)}"])

    def stopping(self, status: str) -> None:
        """Notify that the daemon stops."""
        self._send(["STOPPING=1", _status(status)])

    def _send(self, lines: Iterable[str]) -> None:
        if not self._address:
            return
        message = "\n".join(lines).encode("utf-8", "backslashreplace")
        try:
            # One socket for each message: children have none to close, and it cannot go stale.
            sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
        except OSError:
            return
        try:
            sender.sendto(message, _socket.MSG_DONTWAIT, self._address)
        except (OSError, ValueError):
            pass  # the service manager does not read, has ended, or the address is invalid
        finally:
            sender.close()


def _status(text: str) -> str:
    """Return the status field, in one line."""
    return "STATUS=" + " ".join(text.splitlines())
