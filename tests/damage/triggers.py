"""What makes a daemon's processes do something: clients and operators who may be disappointed."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from processes import title_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clients import Client
    from daemons import Daemon, Event

SHORT_SECONDS = 0.2
"""How long somebody waits who is not sure to be served."""

DENIED = "127.0.0.9"
"""An address that the daemon has to deny."""


def a_client(daemon: Daemon, _bystander: Client) -> None:
    """Somebody comes who may be served, or not."""
    with hopeful(daemon.connect()) as client:
        client.send(b"timequit")
        client.read_all()


def a_refusal(daemon: Daemon, _bystander: Client) -> None:
    """Somebody comes who is not let in, which the master logs."""
    with hopeful(daemon.connect(source=DENIED)) as client:
        client.read_all()


def a_command(_daemon: Daemon, bystander: Client) -> None:
    """The one whose handler it is asks for the time."""
    with hopeful(bystander, stays=True):
        bystander.ask()


def a_goodbye(_daemon: Daemon, bystander: Client) -> None:
    """The one whose handler it is leaves."""
    with hopeful(bystander):
        bystander.quit()


def a_request(daemon: Daemon, request: bytes) -> None:
    """An operator asks something."""
    with hopeful(daemon.connect_to_path("control.sock")) as operator:
        operator.send(request)
        operator.read_all()


def a_status(daemon: Daemon, _bystander: Client) -> None:
    """An operator looks."""
    a_request(daemon, b"status\n")


def an_outlook(daemon: Daemon, _bystander: Client) -> None:
    """An operator asks about an address, which the master answers itself."""
    a_request(daemon, b"source 127.0.0.1\n")


def a_reload(daemon: Daemon, _bystander: Client) -> None:
    """The file is read again, by a master that may die of it."""
    count = len(reloads(daemon)) + 1
    daemon.signal(signal.SIGHUP)
    until(
        lambda: len(reloads(daemon)) >= count or daemon.master.has_ended(0),
        "the outcome of a reload",
    )


def a_new_listener(daemon: Daemon, bystander: Client) -> None:
    """The file is read again, and has a listener more; then it has not."""
    usual = daemon.settings["listen"]
    for listen in ([*usual, {"address": "unix:t.sock"}], usual):
        daemon.configure(listen=listen)
        a_reload(daemon, bystander)


def a_reopening(daemon: Daemon, bystander: Client) -> None:
    """The log is to be opened anew."""
    daemon.signal(signal.SIGUSR1)
    a_client(daemon, bystander)


def a_new_logger(daemon: Daemon, _bystander: Client) -> None:
    """The logger dies, and has to be replaced."""
    for pid in daemon.loggers:
        os.kill(pid, signal.SIGKILL)


def handler_of(daemon: Daemon, client: Client) -> int:
    """Return the handler of a client, which has its title soon after the first answer."""
    title = f"tetrad: handler {client.name}"
    return until(lambda: [pid for pid in daemon.handlers if title_of(pid) == title], title)[0]


def reloads(daemon: Daemon) -> list[Event]:
    """Return the outcomes of reloads."""
    return [*daemon.events("server.reloaded"), *daemon.events("server.reload_failed")]


@contextlib.contextmanager
def hopeful(client: Client, *, stays: bool = False) -> Iterator[Client]:
    """Have a client that bears with whatever happens to it, even if it has left already."""
    with contextlib.suppress(OSError):
        client.socket.settimeout(SHORT_SECONDS)
    try:
        with contextlib.suppress(OSError):
            yield client
    finally:
        if not stays:
            client.close()
