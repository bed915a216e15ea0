"""The programs that tetrad is made of, as command lines to exec.

Each is a module with a `main`. They run isolated from the environment and without site-packages'
start-up files (a stray `.pth` can import `threading`, which halves the rate of forking); what this
process can import, they can.
"""

from __future__ import annotations

import os
import sys

import tetrad

_COVERAGE = {"COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"}


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs `tetrad.MODULE` with `arguments`."""
    code = f"import sys; sys.path[:] = {_path()!r}; from tetrad.{module} import main; main()"
    return [sys.executable, *_flags(), "-c", code, *arguments]


def _flags() -> list[str]:
    # Coverage is measured by a start-up file.
    return [] if _COVERAGE & os.environ.keys() else ["-I", "-S"]


def _path() -> list[str]:
    """Return where to import from, the standard library first: the master imports little else."""
    own = os.path.dirname(os.path.abspath(tetrad.__path__[0]))
    folders = [os.path.abspath(folder) for folder in sys.path if folder]
    libraries = [folder for folder in folders if folder.startswith(sys.base_prefix + os.sep)]
    rest = [folder for folder in folders if folder not in libraries and folder != own]
    return list(dict.fromkeys([*libraries, own, *rest]))
