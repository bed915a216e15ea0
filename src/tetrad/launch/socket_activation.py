"""What a service manager passes to the process that it starts (sd_listen_fds(3), sd_notify(3)).

The variables name that process by its pid, so the launcher reads them before it forks. It also
removes them from the environment: no child process may use them.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, NamedTuple

from tetrad.ipc import listener_pairs
from tetrad.launch.preflight import Problem, StartError
from tetrad.system import sockets
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from tetrad.ipc.runtime_config import ListenerConfig

_FIRST_FD = 3
_MICROSECONDS = 1_000_000

_MAX_SOCKETS = 1 << 16
_MAX_MICROSECONDS = (1 << 64) - 1
"""A larger number in the environment is invalid, and ignored."""


_CONNECTION = (
    "is a connection, not a listening socket: set Accept=no in the socket unit, because tetrad "
    "accepts all clients of a listener itself"
)


class PassedSocket(NamedTuple):
    """A descriptor, and the name that the socket unit gives it (FileDescriptorName=)."""

    fd: int
    name: str


class SocketActivation(NamedTuple):
    """The address for notifications, the watchdog interval in seconds (None: off), the sockets."""

    notify: str | None = None
    watchdog: float | None = None
    sockets: tuple[PassedSocket, ...] = ()


def pop_environment(environment: MutableMapping[str, str], pid: int) -> SocketActivation:
    """Remove the variables from the environment; return what is addressed to the process `pid`."""
    watchdog = environment.pop("WATCHDOG_USEC", "")
    if environment.pop("WATCHDOG_PID", str(pid)) != str(pid):
        watchdog = ""
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if environment.pop("LISTEN_PID", "") != str(pid):
        count = ""
    fds = range(_FIRST_FD, _FIRST_FD + _parse_number(count, _MAX_SOCKETS))
    names += [""] * len(fds)
    return SocketActivation(
        notify=environment.pop("NOTIFY_SOCKET", "") or None,
        watchdog=_parse_number(watchdog, _MAX_MICROSECONDS) / _MICROSECONDS or None,
        sockets=tuple(PassedSocket(fd, name) for fd, name in zip(fds, names, strict=False)),
    )


def adopt(configs: list[ListenerConfig], passed: tuple[PassedSocket, ...]) -> list[socket.socket]:
    """Return the passed socket of each listener, matched by address and port or by name.

    A socket's name is the listener's key, such as `listen[0]`. Raises StartError unless there is
    one socket for each listener and one listener for each socket; OSError if one cannot listen.
    """
    with contextlib.ExitStack() as stack:
        named = [(name, stack.enter_context(_from_fd(fd))) for fd, name in passed]
        found = _pair(configs, named)
        for listener, config in zip(found, configs, strict=True):
            sockets.configure_inherited(listener, config["family"], config["backlog"])
        stack.pop_all()
    return found


def _from_fd(fd: int) -> socket.socket:
    try:
        passed = socket.socket(fileno=fd)
    except OSError as error:
        raise StartError(
            Problem(f"LISTEN_FDS: descriptor {fd} is not a socket: {reason_of(error)}")
        ) from None
    if _is_connection(passed):
        passed.close()
        raise StartError(Problem(f"LISTEN_FDS: descriptor {fd} {_CONNECTION}"))
    return passed


def _is_connection(passed: socket.socket) -> bool:
    try:
        passed.getpeername()
    except OSError:
        return False
    return True


def _pair(
    configs: list[ListenerConfig], named: list[tuple[str, socket.socket]]
) -> list[socket.socket]:
    pairs, missing, unknown = listener_pairs.pair(
        enumerate(configs), named, lambda one, other: _matches(one[1], one[0], *other)
    )
    problems = [
        f"{config['name']}: systemd passed no socket for listen[{index}]: "
        "add ListenStream= to tetrad.socket (tetrad install --socket does it), or remove the "
        "listener from the configuration"
        for index, config in missing
    ]
    problems += [
        f"{_bound_name(listener)}: systemd passed this socket ({name or 'unnamed'}), but it is not "
        "in the configuration: add the listener, or remove the socket from tetrad.socket"
        for name, listener in unknown
    ]
    if problems:
        raise StartError(*map(Problem, problems))
    return [listener for _, (_, listener) in pairs]


def _matches(config: ListenerConfig, index: int, name: str, passed: socket.socket) -> bool:
    if passed.type != socket.SOCK_STREAM or passed.family != sockets.FAMILIES[config["family"]]:
        return False
    return name == f"listen[{index}]" or _bound_name(passed) == config["name"]


def _bound_name(passed: socket.socket) -> str:
    """Return the address of a socket as a listener's name in the configuration."""
    name = passed.getsockname()
    if passed.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if passed.family == socket.AF_INET6 else f"{host}:{port}"


def _parse_number(text: str, maximum: int) -> int:
    """Return the number in a text; 0 if it is larger than the maximum, or no number."""
    number = int(text) if text.isdecimal() and len(text) <= len(str(maximum)) else 0
    return number if number <= maximum else 0
