"""Requests to a running daemon: over its control socket, and by a signal."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from tetrad.system import fork
from tetrad.system.text import reason_of
from tetrad.system.timers import LONGEST_WAIT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Container

T = TypeVar("T")

ANSWER_TIMEOUT_SECONDS = 5.0

MAX_ANSWER_BYTES = 1 << 26
"""Enough for some hundred thousand sessions; a longer answer is not from tetrad."""


_UNKNOWN_REQUEST = "unknown request"
"""The beginning of the error for a request that the daemon does not know."""

_POLL_SECONDS = 0.02

_CREDENTIALS = struct.Struct("@iII")
"""struct ucred: pid, uid, gid."""


class ControlError(Exception):
    """The daemon did not answer as expected; the text is the reason.

    `is_permission`: the caller may not ask, or may not ask this.
    """

    def __init__(self, text: str, *, is_permission: bool = False) -> None:
        super().__init__(text)
        self.is_permission = is_permission


class UnknownRequestError(ControlError):
    """The daemon does not know the request: it is of another release."""


class UntrustedPeerError(ControlError):
    """A process listens on the control socket whose user may not run the daemon."""


class Peer(NamedTuple):
    """The process that listens on a socket, as the kernel knows it (SO_PEERCRED in unix(7)).

    `pid` is 0 if it is in another PID namespace.
    """

    pid: int
    uid: int


class _ErrorAnswer(msgspec.Struct):
    """The answer to a request that was refused; other answers have no `error`."""

    error: str | None = None
    permission: bool = False


def ask(
    path: str,
    request: str,
    kind: type[T],
    timeout: float = ANSWER_TIMEOUT_SECONDS,
    *,
    users: Container[int] | None = None,
) -> T:
    """Send a request to the control socket at `path` and return the answer as a `kind`.

    `timeout` is in seconds. Nothing is sent to a process of another user than `users`, if that is
    given. Raises ControlError.
    """
    try:
        answer = _exchange(path, os.fsencode(request) + b"\n", timeout, users)
    except BlockingIOError:
        raise ControlError(f"{path}: no answer within {timeout:.0f} s") from None
    except OSError as error:
        is_permission = isinstance(error, PermissionError)
        raise ControlError(f"{path}: {reason_of(error)}", is_permission=is_permission) from None
    if not answer:
        # As an earlier release does after a request that is too long for it.
        raise UnknownRequestError(f"{path}: closed without an answer")
    try:
        refusal = msgspec.json.decode(answer, type=_ErrorAnswer)
        if refusal.error is not None and refusal.error.startswith(_UNKNOWN_REQUEST):
            raise UnknownRequestError(f"{path}: {refusal.error}")
        if refusal.error is not None:
            raise ControlError(f"{path}: {refusal.error}", is_permission=refusal.permission)
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ControlError(f"{path}: invalid answer: {error}") from None


def _exchange(path: str, request: bytes, timeout: float, users: Container[int] | None) -> bytes:
    """Send a request and return all that is received. Raises OSError or ControlError."""
    answer = bytearray()
    with _connect(path, timeout) as peer:
        pid, uid = _peer_of(peer)
        if users is not None and uid not in users:
            what = f"pid {pid} of user id {uid}" if pid else f"a process of user id {uid}"
            text = f"{path}: {what} listens there, who may not run this daemon: not asked"
            raise UntrustedPeerError(text)
        # A caller that may not ask is told so at once, and the connection is closed.
        with contextlib.suppress(BrokenPipeError):
            peer.sendall(request)
        deadline = time.monotonic() + timeout
        while data := _receive(peer):
            answer += data
            if time.monotonic() > deadline:
                raise BlockingIOError
            if len(answer) > MAX_ANSWER_BYTES:
                raise ControlError(f"{path}: the answer is too long")
    return bytes(answer)


def _receive(peer: socket.socket) -> bytes:
    """Return what was sent next; nothing at the end, also of a peer that has not read all."""
    try:
        return peer.recv(1 << 16)
    except ConnectionResetError:
        return b""


def _connect(path: str, timeout: float) -> socket.socket:
    """Return a connection to a Unix socket, on which nothing blocks longer than `timeout`."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not settimeout(): with it, connect(2) fails at once if the backlog is full.
        timeval = struct.pack("@ll", int(timeout), 0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        peer.connect(path)
    except BaseException:
        peer.close()
        raise
    return peer


def peer(path: str) -> Peer:
    """Return which process listens on a control socket. Raises OSError if none does."""
    with _connect(path, ANSWER_TIMEOUT_SECONDS) as connected:
        return _peer_of(connected)


def _peer_of(connected: socket.socket) -> Peer:
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return Peer(pid, uid)


def terminate(pid: int, seconds: float, is_same: Callable[[], bool] | None = None) -> bool:
    """Send SIGTERM to a daemon, and tell whether it exits within `seconds`.

    `is_same` tells whether the pid is still the daemon's. Raises PermissionError.
    """
    return wait_for_exit(pid, seconds, signal.SIGTERM, is_same)


def wait_for_exit(
    pid: int,
    seconds: float,
    number: signal.Signals | None = None,
    is_same: Callable[[], bool] | None = None,
) -> bool:
    """Send a process a signal, if any, and tell whether it exits within `seconds`.

    If `is_same` finds that the pid belongs to another process by now, it has exited, and nothing is
    sent. Raises PermissionError.
    """
    with contextlib.ExitStack() as stack:
        try:
            pidfd = fork.open_pidfd(pid)
            stack.callback(os.close, pidfd)
        except ProcessLookupError:
            return True
        except OSError:  # this interpreter, kernel or sandbox has no pidfds
            pidfd = None
        # Asked with the pidfd open: as long as its process lives, the pid is of no other one.
        if is_same is not None and not is_same():
            return True
        try:
            if number is not None:
                _send_signal(pid, pidfd, number)
            if pidfd is None:
                return _wait_without_pidfd(pid, seconds, is_same)
        except ProcessLookupError:
            return True
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(min(seconds, LONGEST_WAIT_SECONDS) * 1000))


def _send_signal(pid: int, pidfd: int | None, number: signal.Signals) -> None:
    """Send a signal to a process. Raises ProcessLookupError or PermissionError."""
    if pidfd is not None:
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            raise
        except (AttributeError, OSError):
            pass  # not in this interpreter, or refused: kill(2) tells whether by permission
        else:
            return
    os.kill(pid, number)


def _wait_without_pidfd(pid: int, seconds: float, is_same: Callable[[], bool] | None) -> bool:
    """Tell whether a process exits within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not running(pid) or (is_same is not None and not is_same()):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def running(pid: int) -> bool:
    """Tell whether a process has the pid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
