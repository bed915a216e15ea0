"""Makes a daemon's processes perform their work: clients and requests that tolerate failures."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from tests.support.processes import title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import Client
    from tests.support.daemons import Daemon, Event

SHORT_SECONDS = 0.2
"""How long a client waits when it may not be served."""

DENIED = "127.0.0.9"
"""An address that the daemon must deny."""


def a_client(daemon: Daemon, _bystander: Client) -> None:
    """Connect and send two commands; both may fail."""
    with tolerant(daemon.connect()) as client:
        client.send(b"timequit")
        client.read_all()


def a_refusal(daemon: Daemon, _bystander: Client) -> None:
    """Connect from the denied address: the master logs a refusal."""
    with tolerant(daemon.connect(source=DENIED)) as client:
        client.read_all()


def a_command(_daemon: Daemon, bystander: Client) -> None:
    """Send a command from the bystander."""
    with tolerant(bystander, keep_open=True):
        bystander.ask()


def a_quit(_daemon: Daemon, bystander: Client) -> None:
    """Have the bystander quit."""
    with tolerant(bystander):
        bystander.quit()


def a_request(daemon: Daemon, request: bytes) -> None:
    """Send a request to the control socket."""
    with tolerant(daemon.connect_to_path("control.sock")) as operator:
        operator.send(request)
        operator.read_all()


def a_status(daemon: Daemon, _bystander: Client) -> None:
    """Request the status."""
    a_request(daemon, b"status\n")


def a_source_request(daemon: Daemon, _bystander: Client) -> None:
    """Ask which limits apply to an address; the master answers without a fork."""
    a_request(daemon, b"source 127.0.0.1\n")


def a_reload(daemon: Daemon, _bystander: Client) -> None:
    """Reload with SIGHUP; the master may die of it."""
    count = len(reload_outcomes(daemon)) + 1
    daemon.signal(signal.SIGHUP)
    until(
        lambda: len(reload_outcomes(daemon)) >= count or daemon.master.has_ended(0),
        "the end of a reload",
    )


def a_new_listener(daemon: Daemon, bystander: Client) -> None:
    """Reload with one listener more, then without it."""
    usual = daemon.settings["listen"]
    for listen in ([*usual, {"address": "unix:t.sock"}], usual):
        daemon.configure(listen=listen)
        a_reload(daemon, bystander)


def a_log_reopen(daemon: Daemon, bystander: Client) -> None:
    """Have the log reopened with SIGUSR1."""
    daemon.signal(signal.SIGUSR1)
    a_client(daemon, bystander)


def a_new_logger(daemon: Daemon, _bystander: Client) -> None:
    """Kill the logger, so that the master must replace it."""
    for pid in daemon.loggers:
        os.kill(pid, signal.SIGKILL)


def handler_of(daemon: Daemon, client: Client) -> int:
    """Return the pid of a client's handler, which sets its title soon after the first answer."""
    title = f"tetrad: handler {client.name}"
    return until(lambda: [pid for pid in daemon.handlers if title_of(pid) == title], title)[0]


def reload_outcomes(daemon: Daemon) -> list[Event]:
    """Return the events of finished reloads."""
    return [*daemon.events("server.reloaded"), *daemon.events("server.reload_failed")]


@contextlib.contextmanager
def tolerant(client: Client, *, keep_open: bool = False) -> Iterator[Client]:
    """Ignore connection errors and timeouts of a client in the block."""
    with contextlib.suppress(OSError):
        client.socket.settimeout(SHORT_SECONDS)
    try:
        with contextlib.suppress(OSError):
            yield client
    finally:
        if not keep_open:
            client.close()
