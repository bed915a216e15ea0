"""The operator's side of a running daemon: its pidfile, its control socket, and its end."""

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
"""How long an answer may take."""

LONGEST_ANSWER = 1 << 26
"""Bytes, enough for some hundred thousand sessions. Who says more is no daemon of ours."""


class ControlError(Exception):
    """The daemon did not answer; the text says why."""


class _Refusal(msgspec.Struct):
    """An answer that is none."""

    error: str | None = None


def ask(path: str, request: str, kind: type[T], patience: float = ANSWER_TIMEOUT_SECONDS) -> T:
    """Send a request to a control socket and return its answer as a `kind`.

    `patience` is in seconds. Raises NoAnswerError.
    """
    try:
        answer = _exchange(path, request.encode() + b"\n", patience)
    except BlockingIOError:
        raise ControlError(f"{path}: no answer within {patience:.0f} s") from None
    except OSError as error:
        raise ControlError(f"{path}: {reason_of(error)}") from error
    if not answer:
        raise ControlError(f"{path}: no answer; only root and the daemon's own user are given one")
    try:
        refusal = msgspec.json.decode(answer, type=_Refusal).error
        if refusal is not None:
            raise ControlError(f"{path}: {refusal}")
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ControlError(f"{path}: the answer cannot be read: {error}") from None


def _exchange(path: str, request: bytes, patience: float) -> bytes:
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        # Not Python's own timeout: with it, a full backlog is an error at once.
        timeout = struct.pack("@ll", int(patience), 0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        peer.connect(path)
        peer.sendall(request)
        deadline = time.monotonic() + patience
        while data := peer.recv(1 << 16):
            answer += data
            if time.monotonic() > deadline:
                raise BlockingIOError
            if len(answer) > LONGEST_ANSWER:
                raise ControlError(f"{path}: the answer is too long")
    return bytes(answer)


def terminate(pid: int, seconds: float) -> bool:
    """Ask a daemon to stop; True once it is gone, False if it is there after `seconds`.

    Raises PermissionError.
    """
    return wait_for_exit(pid, seconds, signal.SIGTERM)


def wait_for_exit(pid: int, seconds: float, order: signal.Signals | None = None) -> bool:
    """Wait for a daemon to end; `order` is a signal that has it do so. As `terminate`."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if order is not None:
            signal.pidfd_send_signal(pidfd, order)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(min(seconds, LONGEST_WAIT_SECONDS) * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(pidfd)
