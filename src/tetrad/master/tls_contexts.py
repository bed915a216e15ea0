"""TLS in the master: contexts for the listeners that have `tls`, and certificate warnings.

The TLS modules make every fork half as expensive again, so the master loads them only when a
listener needs them.
"""

from __future__ import annotations

import time

from tetrad.ipc import log_protocol
from tetrad.tls.expiry import EXPIRY_WARNING_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import ListenerConfig
    from tetrad.system.timers import Timers
    from tetrad.tls.context import TlsContext

DAY_SECONDS = 86400.0

_FREED_BLOCKS = 8
"""At least the copies of a key that were made for its TLS context."""


def load_contexts(configs: list[ListenerConfig]) -> list[TlsContext | None]:
    """Return the TLS context of each listener, None for a listener without TLS. Raises OSError.

    Private keys, also one in the file of its certificate, are removed from the configurations:
    every handler inherits those, and so does every function that answers a command. A reload and an
    upgrade read the files again.
    """
    if not any(config["tls"] for config in configs):
        return [None] * len(configs)
    from tetrad.tls.context import TlsContext  # noqa: PLC0415 - see the module's docstring

    contexts = [None if (tls := config["tls"]) is None else TlsContext(tls) for config in configs]
    lengths = []
    for config in configs:
        if (tls := config["tls"]) is not None:
            lengths += [len(tls["key"]), len(tls["certificate"])]
            tls["key"] = tls["certificate"] = ""
    _overwrite_freed(lengths)
    return contexts


def _overwrite_freed(lengths: list[int]) -> None:
    """Overwrite the memory of texts that were just freed: an allocator reuses the latest first."""
    for length in lengths:
        _ = (
            ["\0" * length for _ in range(_FREED_BLOCKS)],
            [b"\0" * length for _ in range(_FREED_BLOCKS)],
        )


def warn_of_expiry(
    timers: Timers, log: log_protocol.LogWriter, configs: list[ListenerConfig]
) -> None:
    """Log each certificate that expires soon, now and once a day."""
    now = time.time()
    present = {(tls["file"], tls["expires"]) for one in configs if (tls := one["tls"]) is not None}
    for file, expires in sorted(present):
        if expires - now < EXPIRY_WARNING_SECONDS:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))
            days = int((expires - now) // DAY_SECONDS)
            log.event(
                "warning",
                log_protocol.CERTIFICATE_EXPIRES,
                certificate=file,
                expires=when,
                days=days,
            )
    timers.cancel("certificates")
    if present:
        tomorrow = time.monotonic() + DAY_SECONDS
        timers.set("certificates", tomorrow, lambda: warn_of_expiry(timers, log, configs))
