"""The reloader: reads the configuration file again for a master that cannot.

Its one argument list says how the daemon was started; its plan, or the problems, goes through
descriptor 3 to the master. It applies nothing, but tries what the master must not: see `logfile`.
"""

from __future__ import annotations

import marshal
import os
import pwd
import sys
from typing import TYPE_CHECKING, Any

from tetrad.config import certificates, paths, yaml_reader
from tetrad.config.diagnostics import ConfigError
from tetrad.launch import runtime_config
from tetrad.logger import file as log_file
from tetrad.system.text import reason_of

if TYPE_CHECKING:
    from tetrad.ipc.runtime_config import RuntimeConfig

ANSWER = 3


def main() -> None:
    """Read, and answer."""
    run_mode, config_path = sys.argv[1], sys.argv[2] or None
    with os.fdopen(ANSWER, "wb") as answer:
        marshal.dump(read(config_path, foreground=run_mode == "run"), answer)


def read(config_path: str | None, *, foreground: bool) -> dict[str, Any]:
    """Return the `plan` of the configuration, and what `problems` it meets; or `errors`.

    `is_file_bad`: whether it is the configuration that they are about.
    """
    file = paths.configuration(config_path)
    try:
        loaded = yaml_reader.load(file).checked()
        found = certificates.read(loaded)
    except ConfigError as error:
        return {"errors": error.problems, "is_file_bad": True}
    except PermissionError:
        why = f"the daemon's user, {_user()}, has no permission to read it"
        return {"errors": [f"{file}: {why}"], "is_file_bad": True}
    except OSError as error:
        return {"errors": [f"{file}: {reason_of(error)}"], "is_file_bad": True}
    config = runtime_config.make(loaded, config_path, foreground=foreground, certificates=found)
    return {"config": config, "problems": _problems_of_log(config, foreground=foreground)}


def _user() -> str:
    """Return our user's name; in a container there may be none, but a number."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _problems_of_log(config: RuntimeConfig, *, foreground: bool) -> list[str]:
    """Try whether the log file can be opened: a bad one must not cost the good one."""
    file = config["log"]["file"]
    if file is None and not foreground:
        return [log_file.NO_STANDARD_ERROR]
    try:
        log_file.check_openable(file, config["pidfile"])
    except OSError as error:
        return [f"log.file: {file}: {reason_of(error)}"]
    return []
