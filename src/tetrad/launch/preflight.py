"""What can be known of a start before a daemon that runs is stopped for it. It changes nothing.

Only what will be no better then: a port that is taken may be the running daemon's own. What we may
not do, whom the daemon then becomes may not either, unless it is root that becomes somebody else.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple

from tetrad.config import paths
from tetrad.launch import privileges
from tetrad.logger import file as log_file
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tetrad.config.model import Config, Listener

_PRIVILEGED_PORTS = range(1, 1024)


class Problem(NamedTuple):
    """What will keep a daemon from starting, with the name of its key or listener."""

    text: str
    is_permission: bool = False


def problems(config: Config) -> list[Problem]:
    """Return all of them."""
    daemon = config.daemon
    found = [*_log_problems(config.log.file), *_folder_problems(daemon.working_directory)]
    try:
        privileges.wanted(daemon)
    except PermissionError as error:
        found.append(Problem(str(error), is_permission=True))
    found += _file_problems("daemon.pidfile", daemon.pidfile, paths.pidfile())
    found += _socket_problems("daemon.control", daemon.control, paths.control())
    for listener in config.listen:
        found += _listener_problems(listener)
    return found


def _log_problems(path: str | None) -> Iterator[Problem]:
    if path is None:
        yield Problem(log_file.NO_STANDARD_ERROR)
    elif os.path.isdir(path):
        yield Problem(f"log.file: {path}: is a directory")
    else:
        real = os.path.realpath(path) if os.path.islink(path) else path
        yield from _file_problems("log.file", real, paths.log())


def _folder_problems(path: str) -> Iterator[Problem]:
    if not os.path.isdir(path):
        yield Problem(f"daemon.working_directory: {path}: no such directory")
    elif not os.access(path, os.X_OK):
        yield _forbidden("daemon.working_directory", path)


def _listener_problems(listener: Listener) -> Iterator[Problem]:
    path = listener.address.path
    if path is not None:
        yield from _socket_problems(listener.name, path, None)
        return
    try:
        _try_to_bind(listener.address, 0)
        if listener.port is not None and listener.port in _PRIVILEGED_PORTS:
            _try_to_bind(listener.address, listener.port)
    except PermissionError:
        yield _forbidden("listen", listener.name)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # by the daemon that is to be stopped
            yield Problem(f"{listener.name}: {reason_of(error)}")


def _try_to_bind(address: str, port: int) -> None:
    """Have a port, for a moment. Raises OSError."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((str(address), port))


def _socket_problems(name: str, path: str, default: str | None) -> Iterator[Problem]:
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        yield from _file_problems(name, path, default)
        return
    folder = os.path.dirname(path)
    if not is_socket:
        text = f"{name}: {path}: that is no socket, so it is not taken away; name another path"
        yield Problem(text)
    elif not os.access(folder, os.W_OK | os.X_OK):  # it has to be taken away
        yield _forbidden(name, folder)


def _file_problems(name: str, path: str, default: str | None) -> Iterator[Problem]:
    """Look whether a file can be opened to be written, or made; the default's folder is, too."""
    folder = os.path.dirname(path)
    if os.path.exists(path):
        if not os.access(path, os.R_OK | os.W_OK):
            yield _forbidden(name, path)
    elif os.path.isdir(folder):
        if not os.access(folder, os.W_OK | os.X_OK):
            yield _forbidden(name, folder)
    elif path != default:
        yield Problem(f"{name}: {folder}: no such directory")


def _forbidden(name: str, path: str) -> Problem:
    return Problem(f"{name}: {path}: permission denied", is_permission=True)
