"""Which configuration is read, and where files lie when nobody says otherwise.

The system's folders are for root, XDG's for others.
"""

from __future__ import annotations

import os
import pwd

SYSTEM_CONFIGURATION = "/etc/tetrad/tetrad.yaml"
CONFIGURATION_VARIABLE = "TETRAD_CONFIG"


def named_configuration(explicit: str | None) -> str | None:
    """Return the file that is named by -c, or else by the environment, wherever we go from here."""
    name = explicit or os.environ.get(CONFIGURATION_VARIABLE)
    try:
        return os.path.abspath(name) if name else None
    except FileNotFoundError:  # the folder that we are in is gone, and that file with it
        return name


def configuration(explicit: str | None) -> str | None:
    """Return the configuration to read: the one named, the system's, or none."""
    system = SYSTEM_CONFIGURATION
    return named_configuration(explicit) or (system if os.path.exists(system) else None)


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
    """Return the folder of pidfile and control socket."""
    if os.geteuid() == 0:
        return "/run/tetrad"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(runtime, "tetrad") if os.path.isabs(runtime) else _state("run")


def log_folder() -> str:
    """Return the folder of the log."""
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
        return f"/tmp/tetrad-{os.geteuid()}"  # noqa: S108 - made 0700, and refused unless it is ours
