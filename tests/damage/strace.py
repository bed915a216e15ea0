"""strace at a daemon's processes: calls that fail, and calls at which a process is killed."""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="install strace")

_BEGUN = re.compile(r"^(?:(\d+) +)?(\w+)\(", re.MULTILINE)
_RETURNED = re.compile(r"^(.* = .*)\n", re.MULTILINE)
_FAILED = "(INJECTED)"


class Point(NamedTuple):
    """A moment in the life of a process: the so-many-th time that it makes a call."""

    call: str
    ordinal: int

    @property
    def death(self) -> str:
        """How strace kills it there."""
        return f"signal=KILL:when={self.ordinal}"


def chosen(points: Sequence[Point], count: int) -> list[Point]:
    """Return so many moments, spread over a life.

    The first and the last few of each call are preferred: what is between them is repetition.
    """
    last = dict(points)
    for few in itertools.count(1):
        telling = [p for p in points if p.ordinal <= few or p.ordinal > last[p.call] - few]
        if len(telling) >= min(count, len(points)):
            break
    count = min(count, len(telling))
    return [telling[(2 * place + 1) * len(telling) // (2 * count)] for place in range(count)]


class Trace:
    """What strace has seen so far."""

    def __init__(self, path: str, tracer: subprocess.Popen[Any]) -> None:
        self._path = path
        self._tracer = tracer

    @property
    def _text(self) -> str:
        with open(self._path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def points(self, pid: int | None = None) -> list[Point]:
        """Return every moment, of one process where several were traced."""
        counts: collections.Counter[str] = collections.Counter()
        found = []
        for who, call in _BEGUN.findall(self._text):
            if pid is None or int(who) == pid:
                counts[call] += 1
                found.append(Point(call, counts[call]))
        return found

    @property
    def faults(self) -> int:
        """How many calls strace has made fail."""
        return self._text.count(_FAILED)

    @property
    def is_over(self) -> bool:
        """Whether a call has failed, and what comes after it has not, or will never come."""
        failed = [line.endswith(_FAILED) for line in _RETURNED.findall(self._text)]
        return any(failed) and (not failed[-1] or self.has_ended)

    @property
    def has_ended(self) -> bool:
        """Whether all that was traced has ended, and strace with it."""
        return self._tracer.poll() is not None

    @property
    def was_killed(self) -> bool:
        """Whether a process that was traced has been killed."""
        return "+++ killed by SIGKILL +++" in self._text


def strace(file: str, calls: str = "all", what: str = "") -> list[str]:
    """Return a strace that writes calls into a file, and tampers with them.

    `what` says how: `error=EMFILE:when=3..5`, `signal=KILL:when=7`, or not at all.
    """
    tamper = ["-e", f"inject={calls}:{what}"] if what else []
    return ["strace", "-o", file, "-e", f"trace={calls}", *tamper]


@contextlib.contextmanager
def attached(
    pid: int, calls: str = "all", what: str = "", *, follow: bool = False
) -> Iterator[Trace]:
    """Trace a process that runs, and those that it forks if `follow`, until the block ends."""
    with tempfile.NamedTemporaryFile(prefix="tetrad-strace-") as file:
        command = [*strace(file.name, calls, what), "-p", str(pid), *["-f"] * follow]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                assert tracer.stderr is not None
                said = tracer.stderr.readline()
                assert "attached" in said, said
                yield Trace(file.name, tracer)
            finally:
                tracer.terminate()
                tracer.wait(PATIENCE_SECONDS)
