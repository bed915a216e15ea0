"""Open, configure and close listening sockets. Imports C modules only: the master loads it."""

from __future__ import annotations

import _socket
import errno
import os
import stat
import sys

from tetrad.system import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FAMILIES = {"inet": _socket.AF_INET, "inet6": _socket.AF_INET6, "unix": _socket.AF_UNIX}

RECV_TIMEOUT_SECONDS = 0.02
"""How long a read from a client blocks."""

_LONG_BYTES = 8 if sys.maxsize > 1 << 32 else 4
_RECV_TIMEVAL = bytes(_LONG_BYTES) + int(RECV_TIMEOUT_SECONDS * 1_000_000).to_bytes(
    _LONG_BYTES, sys.byteorder
)
"""RECV_TIMEOUT_SECONDS as a struct timeval: seconds, then microseconds."""

KEEPALIVE_IDLE_SECONDS = 60
KEEPALIVE_INTERVAL_SECONDS = 15
KEEPALIVE_PROBES = 4
USER_TIMEOUT_MILLISECONDS = 120_000

CONTROL_BACKLOG = 64

_SO_ATTACH_FILTER = 26
_SYN_FILTER = b"".join(
    code.to_bytes(2, sys.byteorder) + bytes((on_true, on_false)) + value.to_bytes(4, sys.byteorder)
    for code, on_true, on_false, value in (
        (0x30, 0, 0, 13),  # load the byte with the flags of the TCP header
        (0x45, 0, 1, 0x02),  # if SYN is set,
        (0x06, 0, 0, 0),  # drop the segment;
        (0x06, 0, 0, 0xFFFF_FFFF),  # otherwise accept all of it
    )
)
"""A socket filter (struct sock_filter[4], see bpf(4) and socket(7)) that drops SYN segments."""


def open_listener(
    family: str,
    address: str,
    port: int,
    backlog: int,
    rivals: Sequence[_socket.socket] = (),
) -> _socket.socket:
    """Return a non-blocking socket that listens on an address or path. Raises OSError.

    `rivals` are listening sockets of this process whose addresses exclude this one. They need not
    be closed before.
    """
    kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK
    listener = _socket.socket(FAMILIES[family], kind, 0)
    try:
        if family == "unix":
            _bind_unix(listener, address)
            listener.listen(backlog)
        else:
            listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            _set_tcp_options(listener)
            if family == "inet6":
                is_dual_stack = address == "::"
                listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, not is_dual_stack)
            shared = [*rivals, listener] if rivals else []
            _share_ports(shared, is_shared=True)
            try:
                listener.bind(addresses.to_bind(address, port))
                listener.listen(backlog)
            finally:
                _share_ports(shared, is_shared=False)
    except BaseException:
        listener.close()
        raise
    return listener


def from_fd(fd: int, family: str) -> _socket.socket:
    """Return the socket object of a listening descriptor, which it then owns."""
    return _socket.socket(FAMILIES[family], _socket.SOCK_STREAM, 0, fd)


def configure_inherited(listener: _socket.socket, family: str, backlog: int) -> None:
    """Make a passed socket non-blocking; set its TCP options and backlog. Raises OSError."""
    os.set_blocking(listener.fileno(), False)
    if family != "unix":
        _set_tcp_options(listener)
    listener.listen(backlog)


def accept(listener: _socket.socket, family: str) -> tuple[_socket.socket, object]:
    """Accept a client; return its socket and its address. Raises OSError."""
    fd, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    return _socket.socket(FAMILIES[family], _socket.SOCK_STREAM, 0, fd), address


def set_recv_timeout(socket: _socket.socket) -> None:
    """Limit how long a read blocks to RECV_TIMEOUT_SECONDS.

    A TCP socket inherits the limit from its listener; a Unix socket does not.
    """
    socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _RECV_TIMEVAL)


def stop_connecting(listener: _socket.socket) -> None:
    """Let no more clients connect to a listening socket; those in its backlog stay there.

    A TCP client that tries is not answered, as with a full backlog: it tries again a second later.
    A client whose handshake has begun gets into the backlog still.
    """
    try:
        if listener.family == _socket.AF_UNIX:
            listener.shutdown(_socket.SHUT_RD)
        else:
            # struct sock_fprog. The bytes of a `bytes` object are at the end of its header.
            address = id(_SYN_FILTER) + bytes.__basicsize__ - 1
            length = (len(_SYN_FILTER) // 8).to_bytes(2, sys.byteorder)
            program = length.ljust(_LONG_BYTES, b"\0") + address.to_bytes(
                _LONG_BYTES, sys.byteorder
            )
            listener.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        pass  # no memory: who connects until the socket is closed is reset


def close(listener: _socket.socket) -> None:
    """Close a listening socket, and remove its path if it has one."""
    path = listener.getsockname()
    listener.close()
    if isinstance(path, str):
        try:
            os.unlink(path)
        except OSError:
            pass  # no permission any more, or already removed


def open_control(path: str) -> _socket.socket:
    """Return a non-blocking Unix socket that listens at a path. Raises OSError.

    Every user may connect: the daemon decides by the peer's credentials.
    """
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK, 0)
    umask = os.umask(0o111)
    try:
        _bind_unix(control, path)
    finally:
        os.umask(umask)
    control.listen(CONTROL_BACKLOG)
    return control


def bound_name(name: str, listener: _socket.socket) -> str:
    """Return the name of a listener, with the port that the kernel chose for port 0."""
    port = bound_port(listener)
    return name if port is None else f"{name.rpartition(':')[0]}:{port}"


def bound_port(listener: _socket.socket) -> int | None:
    """Return the port of a listener; None for a Unix socket."""
    name = listener.getsockname()
    return name[1] if isinstance(name, tuple) else None


def set_stale_aside(path: str) -> str | None:
    """Rename the socket that a dead daemon left at a path, and return its new path.

    Returns None if there is none, or it cannot be renamed.
    """
    aside = f"{path}.{os.getpid()}.old"
    try:
        if not _is_stale_socket(path):
            return None
        os.rename(path, aside)
    except OSError:
        return None
    return aside


def _bind_unix(listener: _socket.socket, path: str) -> None:
    """Bind to a path; remove first the socket that a dead daemon left there. Raises OSError."""
    try:
        listener.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_stale_socket(path):
            raise
        os.unlink(path)
        listener.bind(path)


def _set_tcp_options(listener: _socket.socket) -> None:
    """Set the options that accepted sockets inherit.

    Keepalive and the user timeout close the connection of a client that has become unreachable.
    """
    set_recv_timeout(listener)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    tcp = _socket.IPPROTO_TCP
    listener.setsockopt(tcp, _socket.TCP_NODELAY, 1)
    listener.setsockopt(tcp, _socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    listener.setsockopt(tcp, _socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    listener.setsockopt(tcp, _socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    try:
        listener.setsockopt(tcp, _socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:  # a passed socket of Multipath TCP lacks it
            raise


def _share_ports(listeners: Sequence[_socket.socket], *, is_shared: bool) -> None:
    """Let sockets of one user that exclude each other be open at the same time, or no more."""
    for one in listeners:
        one.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, is_shared)


def _is_stale_socket(path: str) -> bool:
    """Tell whether a path is a Unix socket on which no process listens.

    Does not block: the backlog of a process that listens there may stay full.
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
