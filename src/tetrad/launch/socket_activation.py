"""What a service manager hands to the process that it starts, as of sd_listen_fds(3).

The variables name that process by its pid, so the front reads them before it forks (and takes them
out of the environment, for they are nobody else's).
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, NamedTuple

from tetrad.ipc import listener_pairs
from tetrad.system import sockets
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from tetrad.ipc.runtime_config import ListenerConfig

_FIRST_FD = 3
_MICROSECONDS = 1_000_000

_MOST_SOCKETS = 1 << 16
_LONGEST_MICROSECONDS = (1 << 64) - 1
"""More of either is a slip of somebody's pen."""


class MismatchError(Exception):
    """The sockets that were passed are not those of the configuration; the text says which."""


class PassedSocket(NamedTuple):
    """A socket that was passed: its descriptor, and the name that its unit gives it."""

    fd: int
    name: str


class SocketActivation(NamedTuple):
    """`notify` is where the manager listens, `watchdog` the seconds after which it loses patience.

    Both are None where it does not care.
    """

    notify: str | None = None
    watchdog: float | None = None
    sockets: tuple[PassedSocket, ...] = ()


def take(environment: MutableMapping[str, str], pid: int) -> SocketActivation:
    """Take out of the environment what is meant for the process `pid`."""
    watchdog = environment.pop("WATCHDOG_USEC", "")
    if environment.pop("WATCHDOG_PID", str(pid)) != str(pid):
        watchdog = ""
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if environment.pop("LISTEN_PID", "") != str(pid):
        count = ""
    fds = range(_FIRST_FD, _FIRST_FD + _number(count, _MOST_SOCKETS))
    names += [""] * len(fds)
    return SocketActivation(
        notify=environment.pop("NOTIFY_SOCKET", "") or None,
        watchdog=_number(watchdog, _LONGEST_MICROSECONDS) / _MICROSECONDS or None,
        sockets=tuple(PassedSocket(fd, name) for fd, name in zip(fds, names, strict=False)),
    )


def adopt(configs: list[ListenerConfig], passed: tuple[PassedSocket, ...]) -> list[socket.socket]:
    """Return the passed socket of each listener: by its address and port, or by its name.

    A name is the listener's place in the file, as `listen[0]`. Raises MismatchError unless there is
    one socket for each listener and one listener for each socket; OSError for what cannot listen.
    """
    with contextlib.ExitStack() as stack:
        named = [(name, stack.enter_context(_socket(fd))) for fd, name in passed]
        found = _match(configs, named)
        for listener, config in zip(found, configs, strict=True):
            sockets.configure_inherited(listener, config["family"], config["backlog"])
        stack.pop_all()
    return found


def _socket(fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise MismatchError(
            f"LISTEN_FDS names descriptor {fd}, which is no socket: {reason_of(error)}"
        ) from None


def _match(
    configs: list[ListenerConfig], named: list[tuple[str, socket.socket]]
) -> list[socket.socket]:
    pairs, missing, unknown = listener_pairs.pair(
        enumerate(configs), named, lambda one, other: _is_for(one[1], one[0], *other)
    )
    for index, config in missing:
        raise MismatchError(
            f"{config['name']}: systemd passed listeners, but none for listen[{index}]: "
            "add it to tetrad.socket, or take it out of the configuration"
        )
    for name, listener in unknown:
        raise MismatchError(
            f"{_place(listener)}: systemd listens there ({name or 'unnamed'}), but the "
            "configuration does not: add it, or take it out of tetrad.socket"
        )
    return [listener for _, (_, listener) in pairs]


def _is_for(config: ListenerConfig, index: int, name: str, passed: socket.socket) -> bool:
    if passed.type != socket.SOCK_STREAM or passed.family != sockets.FAMILIES[config["family"]]:
        return False
    return name == f"listen[{index}]" or _place(passed) == config["name"]


def _place(passed: socket.socket) -> str:
    """Return where a socket listens, as the configuration calls it."""
    name = passed.getsockname()
    if passed.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if passed.family == socket.AF_INET6 else f"{host}:{port}"


def _number(text: str, most: int) -> int:
    """Return a number of at most that size; 0 for anything else."""
    number = int(text) if text.isdecimal() and len(text) <= len(str(most)) else 0
    return number if number <= most else 0
