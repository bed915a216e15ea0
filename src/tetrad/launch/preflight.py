"""Checks of what a start needs, and the text for each fault, with the way out.

`restart` checks before it stops the daemon, the launcher before it binds, a reload checks the log.
A port in use is not checked: it may be the running daemon's own. The launcher finds that, and what
changes after a check, when it binds, and takes the text from here.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tetrad.config import paths
from tetrad.launch import pidfile, privileges
from tetrad.system.text import LIMIT_HINTS, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tetrad.config.model import Config, Listener
    from tetrad.ipc.runtime_config import RuntimeConfig

NO_TERMINAL = "log.file is null, but a daemon has no terminal: name a file, or use tetrad run"

_PRIVILEGED_PORTS = range(1, 1024)

_OPEN_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""A named pipe without a reader must not block; nothing is truncated."""

_OTHER_FILE = (errno.EBUSY, errno.EEXIST, errno.EINVAL, errno.ELOOP)
"""The errors of a path that leads to a file of another kind, or of another program."""

_ADDRESS_HINTS = {
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRINUSE: "another program listens there (ss -ltnp shows it)",
    errno.EADDRNOTAVAIL: "no network interface of this host has this address",
}


class Problem(NamedTuple):
    """One fault that prevents a start: where it is, what it is, and the way out."""

    text: str
    is_permission: bool = False


class StartError(Exception):
    """The daemon cannot start. The message is one line with all problems."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.is_permission = any(problem.is_permission for problem in problems)


def problems(config: Config, *, bind: bool = True) -> list[Problem]:
    """Return what prevents a start by this user, but for the log. Nothing is changed.

    Without `bind`, listeners are not checked: a service manager has passed their sockets.
    """
    daemon = config.daemon
    directory = daemon.working_directory
    found = [
        *_attempt("", "", lambda _: privileges.target_identity(daemon)),
        *_attempt(f"daemon.working_directory: {directory}", f"{directory}/", _check_directory),
        *_attempt(f"daemon.pidfile: {daemon.pidfile}", daemon.pidfile, _check_pidfile),
        *_attempt(f"daemon.control: {daemon.control}", daemon.control, _check_socket_path),
    ]
    for listener in config.listen if bind else ():
        path = listener.address.path or ""
        check = _check_socket_path if path else partial(_check_address, listener)
        found += _attempt(listener.name, path, check)
    return found


def log_problems(config: RuntimeConfig, *, foreground: bool, create: bool = False) -> list[Problem]:
    """Return what prevents the logger from writing to its file as this user.

    With `create`, a missing file is created, as the logger does; otherwise nothing is changed. Not
    for the process that has claimed the pidfile: it would lose its lock if that is the same file.
    """
    file = config["log"]["file"]
    if file is None:
        return [] if foreground else [Problem(NO_TERMINAL)]
    check = partial(_check_log, config["pidfile"], create)
    return list(_attempt(f"log.file: {file}", file, check))


def problem_of(place: str, error: OSError, path: str | None = None) -> Problem:
    """Return the text for an error of open(2) or bind(2), with a hint at the way out.

    `place` is the key or listener, or empty. `path` is a file, a directory with a slash at its end,
    or empty for a TCP address; None: only limits get a hint.
    """
    hints = _path_hints(path) if path else {} if path is None else _ADDRESS_HINTS
    hint = (LIMIT_HINTS | hints).get(error.errno or 0)
    text = f"{place}: {reason_of(error)}" if place else reason_of(error)
    return Problem(f"{text}; {hint}" if hint else text, isinstance(error, PermissionError))


def _path_hints(path: str) -> dict[int, str]:
    directory = os.path.dirname(path)
    access = "access" if path.endswith("/") else "write access"
    where = path if os.path.isfile(path) else f"directory {directory}"
    return {
        errno.EACCES: f"user {privileges.user_name()} needs {access} to {where}",
        errno.EADDRINUSE: "another program listens there (ss -lxp shows it)",
        errno.EISDIR: "name a file",
        errno.ENOENT: f"create the directory {directory}",
        errno.ENOTDIR: f"{directory} is not a directory; name another path",
        **dict.fromkeys(_OTHER_FILE, "name another path"),
    }


def _attempt(place: str, path: str, check: Callable[[str], object]) -> Iterator[Problem]:
    try:
        check(path)
    except OSError as error:
        yield problem_of(place, error, path)


# The checks: each raises OSError


def _check_address(listener: Listener, _path: str) -> None:
    """Bind to any port of the address, and to the listener's own port if that is privileged."""
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    for port in {0, listener.port if listener.port in _PRIVILEGED_PORTS else 0}:
        with socket.socket(family) as probe:
            try:
                probe.bind((str(listener.address), port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise


def _check_socket_path(path: str) -> None:
    """Check that a Unix socket can be created, and a stale one be removed before."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        is_socket = True
    if not is_socket:
        raise FileExistsError(errno.EEXIST, "exists and is not a socket; not removed")
    _check_creatable(path)


def _check_pidfile(path: str) -> None:
    pidfile.read_state(path)
    _check_file(path)


def _check_log(pidfile_path: str, create: bool, path: str) -> None:  # noqa: FBT001 - see partial
    if create:
        os.close(os.open(path, _OPEN_FLAGS | os.O_CREAT, 0o666))
    else:
        _check_file(path)
    both_exist = os.path.exists(path) and os.path.exists(pidfile_path)
    if both_exist and os.path.samefile(path, pidfile_path):
        raise FileExistsError(errno.EEXIST, "is the same file as daemon.pidfile")


def _check_file(path: str) -> None:
    """Check that a file can be opened for writing, or created."""
    try:
        os.close(os.open(path, _OPEN_FLAGS))
    except FileNotFoundError:
        _check_creatable(os.path.realpath(path))


def _check_creatable(path: str) -> None:
    """Check that files can be created in a directory, unless the launcher creates it, too."""
    directory = os.path.dirname(path)
    is_default = path in {paths.pidfile(), paths.control(), paths.log()}
    if is_default and not os.path.exists(directory):
        return
    _check_directory(f"{directory}/")
    if not os.access(directory, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_directory(path: str) -> None:
    """Check that a directory exists and can be entered; its path ends with a slash."""
    os.stat(f"{path}.")
