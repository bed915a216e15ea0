"""strace at a daemon's processes: calls that fail, and calls at which a process is killed."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="install strace")

_CALL = re.compile(r"^(?:\d+ +)?(?:<\.\.\. )?(\w+)[( ].* = .*$", re.MULTILINE)


class Trace:
    """What strace has seen so far."""

    def __init__(self, path: str, tracer: subprocess.Popen[str]) -> None:
        self._path = path
        self._tracer = tracer

    @property
    def calls(self) -> list[str]:
        """The calls that have returned, a line each."""
        with open(self._path, encoding="utf-8", errors="replace") as file:
            return [match[0] for match in _CALL.finditer(file.read())]

    @property
    def faults(self) -> int:
        """How many calls strace has made fail."""
        return sum(line.endswith("(INJECTED)") for line in self.calls)

    @property
    def is_over(self) -> bool:
        """Whether a call has failed, and what comes after it has not, or will never come."""
        calls = self.calls
        return self.faults > 0 and (not calls[-1].endswith("(INJECTED)") or self.has_ended)

    @property
    def has_ended(self) -> bool:
        """Whether all that was traced has ended, and strace with it."""
        return self._tracer.poll() is not None


@contextlib.contextmanager
def attached(pid: int, calls: str, what: str, *, follow: bool = False) -> Iterator[Trace]:
    """Trace calls of a process that runs, and tamper with them, until the end of the block.

    `what` says how: `error=EMFILE:when=3..5`. Those that it forks are traced too with `follow`.
    """
    with tempfile.NamedTemporaryFile(prefix="tetrad-strace-") as file:
        command = [
            "strace",
            "-o",
            file.name,
            "-e",
            f"trace={calls}",
            "-e",
            f"inject={calls}:{what}",
        ]
        command += [*["-f"] * follow, "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                assert tracer.stderr is not None
                said = tracer.stderr.readline()
                assert "attached" in said, said
                yield Trace(file.name, tracer)
            finally:
                tracer.terminate()
                tracer.wait(PATIENCE_SECONDS)
