"""Listening sockets. Imported by the front and by the master, so it imports next to nothing."""

from __future__ import annotations

import _socket
import errno
import os
import stat
import sys

FAMILIES = {"inet": _socket.AF_INET, "inet6": _socket.AF_INET6, "unix": _socket.AF_UNIX}

RECV_TIMEOUT_SECONDS = 0.02
"""How long a read from a client blocks."""

_LONG_BYTES = 8 if sys.maxsize > 1 << 32 else 4
_READ_TIMEOUT = bytes(_LONG_BYTES) + int(RECV_TIMEOUT_SECONDS * 1_000_000).to_bytes(
    _LONG_BYTES, sys.byteorder
)
"""The same as a struct timeval."""

KEEPALIVE_IDLE_SECONDS = 60
KEEPALIVE_INTERVAL_SECONDS = 15
KEEPALIVE_PROBES = 4
USER_TIMEOUT_MILLISECONDS = 120_000


def open_listener(family: str, address: str, port: int, backlog: int) -> _socket.socket:
    """Return a non-blocking socket that listens at an address or path. Raises OSError."""
    kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK
    listener = _socket.socket(FAMILIES[family], kind, 0)
    try:
        if family == "unix":
            bind_unix(listener, address)
        else:
            _prepare(listener, family, address)
            listener.bind((address, port))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def from_fd(fd: int, family: str) -> _socket.socket:
    """Take over a listening socket that another program opened."""
    return _socket.socket(FAMILIES[family], _socket.SOCK_STREAM, 0, fd)


def configure_inherited(listener: _socket.socket, family: str, backlog: int) -> None:
    """Have a socket that a service manager opened listen as ours do. Raises OSError."""
    os.set_blocking(listener.fileno(), False)
    if family != "unix":
        _watch_peers(listener)
    listener.listen(backlog)


def accept(listener: _socket.socket, family: str) -> tuple[_socket.socket, object]:
    """Accept a client: its socket and its address. Raises OSError."""
    fd, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    return _socket.socket(FAMILIES[family], _socket.SOCK_STREAM, 0, fd), address


def set_recv_timeout(socket: _socket.socket) -> None:
    """Have a read that blocks give up after a moment.

    What is accepted from a TCP listener inherits that, if the listener had it before.
    """
    socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _READ_TIMEOUT)


def bind_unix(listener: _socket.socket, path: str) -> None:
    """Bind a Unix socket; what a daemon that died left behind is taken away first."""
    try:
        listener.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_stale(path):
            raise
        os.unlink(path)
        listener.bind(path)


def close(listener: _socket.socket) -> None:
    """Close a listening socket, and remove its path if it has one."""
    path = listener.getsockname()
    listener.close()
    if isinstance(path, str):
        try:
            os.unlink(path)
        except OSError:
            pass  # the folder is no longer writable, or the path is gone already


def open_control(path: str, backlog: int) -> _socket.socket:
    """Bind and listen at a socket that only its owner may talk to. Raises OSError."""
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK, 0)
    before = os.umask(0o177)
    try:
        bind_unix(control, path)
    finally:
        os.umask(before)
    control.listen(backlog)
    return control


def bound_name(name: str, listener: _socket.socket) -> str:
    """Return the name of a listener with the port that the kernel chose, if it did."""
    port = bound_port(listener)
    return name if port is None else f"{name.rpartition(':')[0]}:{port}"


def bound_port(listener: _socket.socket) -> int | None:
    """Return the port a listener got; None for a Unix socket."""
    name = listener.getsockname()
    return name[1] if isinstance(name, tuple) else None


def _prepare(listener: _socket.socket, family: str, address: str) -> None:
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    _watch_peers(listener)
    if family == "inet6":
        only = address != "::"
        listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, only)


def _watch_peers(listener: _socket.socket) -> None:
    """Set what accepted sockets inherit: a peer whose cable was pulled must not stay for ever."""
    set_recv_timeout(listener)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    tcp = _socket.IPPROTO_TCP
    listener.setsockopt(tcp, _socket.TCP_NODELAY, 1)
    listener.setsockopt(tcp, _socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    listener.setsockopt(tcp, _socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    listener.setsockopt(tcp, _socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    listener.setsockopt(tcp, _socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS)


def _is_stale(path: str) -> bool:
    """Tell whether there is a Unix socket at a path, and nobody listens at it any more.

    Without waiting: who listens there may have no room for us, for as long as it likes.
    """
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK, 0)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return False
