"""The operator's side of a running daemon: its pidfile, its control socket, and its end."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from typing import Any

PATIENCE_SECONDS = 40.0
"""How long an answer may take; a reload reads a file first."""


class NoAnswerError(Exception):
    """The daemon did not answer; the text says why."""


def ask(path: str, request: str) -> dict[str, Any]:
    """Send a request to a control socket and return the answer. Raises NoAnswerError."""
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(PATIENCE_SECONDS)
            peer.connect(path)
            peer.sendall(request.encode() + b"\n")
            while data := peer.recv(1 << 16):
                answer += data
        if not answer:
            message = f"{path}: it closed the connection: it talks to root and to its own user only"
            raise NoAnswerError(message)
        decoded: dict[str, Any] = json.loads(answer)
    except OSError as error:
        message = f"{path}: {(error.strerror or str(error)).lower()}"
        raise NoAnswerError(message) from error
    except ValueError:
        message = f"{path}: the answer cannot be read"
        raise NoAnswerError(message) from None
    return decoded


def terminate(pid: int, seconds: float) -> bool:
    """Ask a daemon to stop; True once it is gone, False if it is there after `seconds`.

    Raises PermissionError.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(pidfd)
