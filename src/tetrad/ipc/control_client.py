"""Requests to a running daemon: over its control socket, and by a signal."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from typing import TypeVar

import msgspec

from tetrad.system.text import reason_of
from tetrad.system.timers import LONGEST_WAIT_SECONDS

T = TypeVar("T")

ANSWER_TIMEOUT_SECONDS = 5.0

MAX_ANSWER_BYTES = 1 << 26
"""Enough for some hundred thousand sessions; a longer answer is not from tetrad."""


class ControlError(Exception):
    """The daemon did not answer as expected; the text is the reason."""


class _ErrorAnswer(msgspec.Struct):
    """The answer to a request that was refused; other answers have no `error`."""

    error: str | None = None


def ask(path: str, request: str, kind: type[T], timeout: float = ANSWER_TIMEOUT_SECONDS) -> T:
    """Send a request to the control socket at `path` and return the answer as a `kind`.

    `timeout` is in seconds. Raises ControlError; its cause is an OSError of the connection.
    """
    try:
        answer = _exchange(path, os.fsencode(request) + b"\n", timeout)
    except BlockingIOError:
        raise ControlError(f"{path}: no answer within {timeout:.0f} s") from None
    except OSError as error:
        raise ControlError(f"{path}: {reason_of(error)}") from error
    if not answer:
        allowed = "root, the daemon's user and members of daemon.control_group"
        raise ControlError(f"{path}: no answer; only {allowed} get one")
    try:
        refusal = msgspec.json.decode(answer, type=_ErrorAnswer).error
        if refusal is not None:
            raise ControlError(f"{path}: {refusal}")
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ControlError(f"{path}: invalid answer: {error}") from None


def _exchange(path: str, request: bytes, timeout: float) -> bytes:
    """Send a request and return all that is received. Raises OSError or ControlError."""
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        # Not settimeout(): with it, connect(2) fails at once if the backlog is full.
        timeval = struct.pack("@ll", int(timeout), 0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        peer.connect(path)
        peer.sendall(request)
        deadline = time.monotonic() + timeout
        while data := peer.recv(1 << 16):
            answer += data
            if time.monotonic() > deadline:
                raise BlockingIOError
            if len(answer) > MAX_ANSWER_BYTES:
                raise ControlError(f"{path}: the answer is too long")
    return bytes(answer)


def terminate(pid: int, seconds: float) -> bool:
    """Send SIGTERM to a daemon, and tell whether it exits within `seconds`.

    Raises PermissionError.
    """
    return wait_for_exit(pid, seconds, signal.SIGTERM)


def wait_for_exit(pid: int, seconds: float, number: signal.Signals | None = None) -> bool:
    """Send a process a signal, if any, and tell whether it exits within `seconds`.

    Raises PermissionError.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if number is not None:
            signal.pidfd_send_signal(pidfd, number)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(min(seconds, LONGEST_WAIT_SECONDS) * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(pidfd)
