"""Which configuration file is read, and the default paths of the files of a daemon.

The defaults are in the system's folders for root, and in the XDG folders for other users.
"""

from __future__ import annotations

import os
import pwd

SYSTEM_CONFIGURATION = "/etc/tetrad/tetrad.yaml"
CONFIGURATION_VARIABLE = "TETRAD_CONFIG"


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
    return SYSTEM_CONFIGURATION if os.path.exists(SYSTEM_CONFIGURATION) else None


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
    if os.geteuid() == 0:
        return "/run/tetrad"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(runtime, "tetrad") if os.path.isabs(runtime) else _state("run")


def log_folder() -> str:
    """Return the default folder of the log."""
    return "/var/log/tetrad" if os.geteuid() == 0 else _state()


def _state(*below: str) -> str:
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(_home(), ".local", "state")
    return os.path.join(state, "tetrad", *below)


def _home() -> str:
    home = os.environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        # Created with mode 0700, and refused if it belongs to another user.
        return f"/tmp/tetrad-{os.geteuid()}"  # noqa: S108
