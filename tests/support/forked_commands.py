"""Runs tetrad commands in processes forked from one that has imported them already.

That costs a tenth of the start of a Python. A command has its own process, environment, streams
and working directory all the same; only the start of the interpreter is not tested.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Any

from tests.support import processes
from tests.support.processes import (
    TIMEOUT_SECONDS,
    UNDER_COVERAGE,
    Ran,
    assert_no_traceback,
    status_of,
)
from tetrad import cli

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["__main__", __name__, "tetrad.cli.start_stop", "tetrad.cli.status"]
)


COMMAND = [sys.executable, "-m", "tetrad"]

_AT_START = re.compile(r"PYTHON|LC_|LANG|COVERAGE|LD_")
"""Variables that an interpreter reads when it starts."""


def tetrad(
    arguments: Sequence[str],
    environment: dict[str, str],
    command: Sequence[str] = COMMAND,
    **options: Any,  # noqa: ANN401
) -> Ran:
    """Run a tetrad command to its end, forked if that is like its execution."""
    if options or command != COMMAND or not _fits(environment):
        return processes.run([*command, *arguments], environment, **options)
    return _run(arguments, environment)


def _fits(environment: dict[str, str]) -> bool:
    """Tell whether a forked command is like one that this thread executes in an environment."""

    def at_start(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if _AT_START.match(name)}

    networks = {os.readlink(f"/proc/{one}/ns/net") for one in ("self", "thread-self")}
    same = len(networks) == 1 and at_start(environment) == at_start(os.environ)
    return same and not UNDER_COVERAGE


def _run(arguments: Sequence[str], environment: dict[str, str]) -> Ran:
    umask = int(status_of(os.getpid())["Umask"], 8)
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        child = _CONTEXT.Process(
            target=_command, args=(list(arguments), environment, out.name, err.name, umask)
        )
        child.start()
        child.join(TIMEOUT_SECONDS)
        status = child.exitcode
        child.kill()
        assert status is not None, f"tetrad {' '.join(arguments)} has not ended"
        ran = Ran(status, _text_of(out), _text_of(err))
    assert_no_traceback(ran.err)
    return ran


def _command(
    arguments: Sequence[str], environment: dict[str, str], out: str, err: str, umask: int
) -> None:
    """Run a command; this is the whole life of its process."""
    os.environ.clear()
    os.environ.update(environment)
    os.umask(umask)
    for stream, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY),
        (2, err, os.O_WRONLY),
    ):
        fd = os.open(path, flags)
        os.dup2(fd, stream)
        os.close(fd)
    sys.argv = ["tetrad", *arguments]
    cli.main(arguments)


def _text_of(file: IO[str]) -> str:
    return file.read()
