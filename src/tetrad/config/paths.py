"""Which configuration file is read, and the default paths of the files of a daemon.

The defaults are in the system's folders for root, and for the system's configuration file whoever
reads it. With another file, or with none, those of other users are in their XDG folders. They are
resolved for a start: a daemon hands them on to the programs that read its file again.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from tetrad.system import users
from tetrad.system.text import is_utf_8

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_CONFIGURATION = "/etc/tetrad/tetrad.yaml"
CONFIGURATION_VARIABLE = "TETRAD_CONFIG"


class _Defaults:
    """What the default paths depend on: the file that was read, and who starts the daemon."""

    def __init__(self) -> None:
        self.file: str | None = None
        self.user: int | None = None
        self.environment: Mapping[str, str] = os.environ
        self.folders: tuple[str, str] | None = None

    @property
    def uid(self) -> int:
        """Who starts the daemon: a user that was set, or that of this process."""
        return os.geteuid() if self.user is None else self.user


_defaults = _Defaults()


def named_configuration(config_path: str | None) -> str | None:
    """Return the absolute path of the file named by -c (`config_path`) or $TETRAD_CONFIG."""
    name = config_path or os.environ.get(CONFIGURATION_VARIABLE)
    try:
        return os.path.abspath(name) if name else None
    except FileNotFoundError:  # the working directory was removed, and the file with it
        return name


def configuration(config_path: str | None) -> str | None:
    """Return the file to read: the named one, else the system's if it exists, else None."""
    return named_configuration(config_path) or system_configuration()


def system_configuration() -> str | None:
    """Return the system's file if it exists."""
    return SYSTEM_CONFIGURATION if exists(SYSTEM_CONFIGURATION) else None


def exists(path: str) -> bool:
    """Tell whether there is a file. One in a folder that cannot be read is there.

    So is a link to a file that is not: whoever reads it reports the error.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def use_defaults_of(file: str | None) -> None:
    """Let the default paths be those for a configuration file, which this process reads."""
    _defaults.file = file


def use_defaults_of_user(uid: int, environment: Mapping[str, str]) -> None:
    """Let the default paths be those of a daemon that another user starts."""
    _defaults.user, _defaults.environment = uid, environment


def use_folders(runtime: str, log: str) -> None:
    """Let the default paths be in the folders that a start has resolved, whatever else is set."""
    _defaults.folders = runtime, log


def pidfile() -> str:
    """Return the default pidfile."""
    return os.path.join(runtime_folder(), "tetrad.pid")


def control() -> str:
    """Return the default control socket."""
    return os.path.join(runtime_folder(), "control.sock")


def log() -> str:
    """Return the default log file."""
    return os.path.join(log_folder(), "tetrad.log")


def runtime_folder() -> str:
    """Return the default folder of the pidfile and the control socket."""
    if _defaults.folders is not None:
        return _defaults.folders[0]
    if _is_system():
        return "/run/tetrad"
    runtime = _folder_of("XDG_RUNTIME_DIR")
    # systemd removes the folder of a login session at its end, and cron has none; daemons stay.
    if not runtime or os.path.normpath(runtime) == f"/run/user/{_defaults.uid}":
        return _state("run")
    return os.path.join(runtime, "tetrad")


def log_folder() -> str:
    """Return the default folder of the log."""
    if _defaults.folders is not None:
        return _defaults.folders[1]
    return "/var/log/tetrad" if _is_system() else _state()


def check_temporary_home() -> None:
    """Raise PermissionError if the default folders lie in /tmp, in a folder of another user."""
    home = f"{_temporary_home()}/"
    if not any(path.startswith(home) for path in (pidfile(), control(), log())):
        return
    try:
        status = os.lstat(home.rstrip("/"))
    except FileNotFoundError:
        return
    is_private = not stat.S_IMODE(status.st_mode) & 0o022
    if not (stat.S_ISDIR(status.st_mode) and status.st_uid == _defaults.uid and is_private):
        text = "not a folder of this user alone; set HOME or XDG_STATE_HOME"
        raise PermissionError(errno.EPERM, text, home.rstrip("/"))


def without_links(path: str) -> str:
    """Return a path without symbolic links in its folder, such as /var/run, which leads to /run."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _is_system() -> bool:
    return _defaults.uid == 0 or _defaults.file == SYSTEM_CONFIGURATION


def owner_of_runtime_variable(directory: str) -> int | None:
    """Return the user of $XDG_RUNTIME_DIR if it is another one, and has the directory.

    su(1) without `-` keeps the variable of the user before; a unit of systemd sets it on purpose.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    is_used = _defaults.user is None and not _is_system()
    if not (is_used and runtime) or directory not in {runtime, os.path.join(runtime, "tetrad")}:
        return None
    try:
        owner = os.stat(runtime).st_uid
    except OSError:
        return None
    return None if owner == _defaults.uid else owner


def _state(*below: str) -> str:
    state = _folder_of("XDG_STATE_HOME") or os.path.join(_home(), ".local", "state")
    return os.path.join(state, "tetrad", *below)


def _home() -> str:
    return _folder_of("HOME") or users.home(_defaults.uid) or _temporary_home()


def _folder_of(variable: str) -> str:
    """Return the absolute path in UTF-8 that an environment variable has; nothing otherwise."""
    path = _defaults.environment.get(variable, "")
    return path if os.path.isabs(path) and is_utf_8(path) else ""


def _temporary_home() -> str:
    """Return the home of a user without one: see `check_temporary_home`."""
    return f"/tmp/tetrad-{_defaults.uid}"  # noqa: S108
