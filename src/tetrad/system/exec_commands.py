"""Command lines that execute a module of tetrad as a program: master, logger and helpers.

The program runs isolated from the environment and without site-packages' start-up files: a stray
`.pth` file can import `threading`, which halves the rate of forks. It can import what this process
can import.
"""

from __future__ import annotations

import os
import sys

import tetrad

ISOLATION = ["-I", "-S"]
"""Options of Python: no variables of the environment, no user site, no start-up files."""

_UTF8 = ["-X", "utf8"]
"""Options of Python: texts are in UTF-8, whatever the locale."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that calls `main` of `tetrad.MODULE`, with `arguments`."""
    code = f"import sys; sys.path[:] = {_import_path()!r}; from tetrad.{module} import main; main()"
    return [sys.executable, *ISOLATION, *_UTF8, "-c", code, *arguments]


def arguments(command_line: list[str]) -> list[str]:
    """Return the arguments in a command line that `command` has made."""
    return command_line[command_line.index("-c") + 2 :]


def _import_path() -> list[str]:
    """Return the directories to import from, with the standard library, the most used, first."""
    own = os.path.dirname(os.path.abspath(tetrad.__path__[0]))
    folders = [os.path.abspath(folder) for folder in sys.path if folder]
    libraries = [folder for folder in folders if folder.startswith(sys.base_prefix + os.sep)]
    rest = [folder for folder in folders if folder not in libraries and folder != own]
    return list(dict.fromkeys([*libraries, own, *rest]))
