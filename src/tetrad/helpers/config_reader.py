"""The config reader: a helper that reads the configuration file for the master.

The arguments are how the daemon was started, `run` or `start`, the file's path, empty if it was not
named, and the default folders. The runtime configuration, or what is wrong, goes to descriptor 3.
It applies nothing and creates nothing, but opens the log file, which the master must not: see
`preflight.log_problems`.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import Any

from tetrad.config import certificates, paths, yaml_reader
from tetrad.config.diagnostics import ConfigError
from tetrad.launch import functions, preflight, privileges, runtime_config
from tetrad.system.text import reason_of

ANSWER = 3


def main() -> None:
    """Read the configuration and write the answer."""
    with os.fdopen(ANSWER, "wb") as answer:
        marshal.dump(read(*sys.argv[1:]), answer)


def read(run_mode: str, named_file: str, *folders: str) -> dict[str, Any]:
    """Return the runtime `config` of a valid file, and the `problems` of its log; or `errors`.

    `is_file_bad` tells whether the errors are about the configuration. `folders` are the default
    ones of the runtime files and of the log; a daemon of version 0.1.0 does not hand them on.
    """
    config_path, foreground = named_file or None, run_mode == "run"
    if folders:
        paths.use_folders(*folders)
    file = paths.configuration(config_path)
    try:
        loaded = yaml_reader.load(file).checked()
        found = certificates.read(loaded)
        functions.check(loaded)
    except ConfigError as error:
        return {"errors": error.problems, "is_file_bad": True}
    except OSError as error:
        user = f"; user {privileges.user_name()} needs read access"
        hint = user if isinstance(error, PermissionError) else ""
        return {"errors": [f"{file}: {reason_of(error)}{hint}"], "is_file_bad": True}
    config = runtime_config.build(loaded, config_path, foreground=foreground, certificates=found)
    problems = preflight.log_problems(config, foreground=foreground)
    if config["log"]["file"] is None and problems:
        return {"errors": [problem.text for problem in problems], "is_file_bad": True}
    return {"config": config, "problems": [problem.text for problem in problems]}
