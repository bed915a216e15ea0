"""TLS as the master knows it: nothing, unless a listener has it; then all of it, before the fork.

What serves encrypted clients (`tetrad.handler.tls_session`) costs every fork half as much again, so
a master
without it must not have it: this is the one module that imports something later.
"""

from __future__ import annotations

import time

from tetrad.handler.progress import SessionProgress
from tetrad.ipc import log_protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tetrad.handler.idle_wait import IdleWait
    from tetrad.handler.tls_session import TlsContext
    from tetrad.ipc.fd_passing import ClientHandoff
    from tetrad.ipc.runtime_config import ListenerConfig
    from tetrad.system.event_loop import EventLoop

WARNED_SECONDS = 30 * 86400.0
"""How long before its end a certificate is spoken of."""

DAY_SECONDS = 86400.0


class SlowPathOnly:
    """Instead of the fast path, for clients whose first bytes are not their commands."""

    __slots__ = ("_idle_wait",)

    def __init__(self, idle_wait: IdleWait) -> None:
        self._idle_wait = idle_wait

    def refresh(self) -> None:
        """Have nothing ready."""

    def serve(self, socket: _socket.socket, client: ClientHandoff, notice: bytes) -> bool:
        """Leave everything to a session."""
        self._idle_wait.settle(client[0].encode())
        return self._idle_wait.go_on(socket, client, SessionProgress(time.monotonic()), notice)


def make(configs: list[ListenerConfig]) -> list[TlsContext | None]:
    """Return what each listener's clients are encrypted with, if they are. Raises OSError."""
    if not any(config["tls"] for config in configs):
        return [None] * len(configs)
    from tetrad.handler.tls_session import TlsContext  # noqa: PLC0415 - only where it is paid for

    return [None if (tls := config["tls"]) is None else TlsContext(tls) for config in configs]


def remind(loop: EventLoop, log: log_protocol.LogWriter, configs: list[ListenerConfig]) -> None:
    """Log which certificates are near their end, now and every day."""
    now = time.time()
    present = {
        (tls["file"], tls["expires"]) for config in configs if (tls := config["tls"]) is not None
    }
    for file, expires in sorted(present):
        if expires - now < WARNED_SECONDS:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
            days = int((expires - now) // DAY_SECONDS)
            log.event(
                "warning",
                log_protocol.CERTIFICATE_EXPIRES,
                certificate=file,
                expires=when,
                days=days,
            )
    loop.timers.cancel("certificates")
    if present:
        when_again = time.monotonic() + DAY_SECONDS
        loop.timers.set("certificates", when_again, lambda: remind(loop, log, configs))
