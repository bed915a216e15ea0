"""Runs strace: records system calls, makes them fail, or kills a process at a call."""

from __future__ import annotations

import collections
import contextlib
import itertools
import re
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.processes import TIMEOUT_SECONDS
from tests.support.system_programs import needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

needs_strace = needs("strace")

_BEGUN = re.compile(r"^(?:(\d+) +)?(\w+)\(", re.MULTILINE)
_RETURNED = re.compile(r"^(.* = .*)\n", re.MULTILINE)
_FAILED = "(INJECTED)"


class Point(NamedTuple):
    """A point in the life of a process: its n-th call of a system call."""

    call: str
    ordinal: int

    @property
    def kill_option(self) -> str:
        """The strace option that kills the process there."""
        return f"signal=KILL:when={self.ordinal}"


def select_points(points: Sequence[Point], count: int) -> list[Point]:
    """Select this many points, spread over the life of the process.

    The first and last few of each call are preferred, because the calls between them repeat.
    """
    last = dict(points)
    for few in itertools.count(1):
        candidates = [p for p in points if p.ordinal <= few or p.ordinal > last[p.call] - few]
        if len(candidates) >= min(count, len(points)):
            break
    count = min(count, len(candidates))
    return [candidates[(2 * place + 1) * len(candidates) // (2 * count)] for place in range(count)]


class Trace:
    """The output of a running strace."""

    def __init__(self, path: str, tracer: subprocess.Popen[Any]) -> None:
        self._path = path
        self._tracer = tracer

    @property
    def _text(self) -> str:
        with open(self._path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def points(self, pid: int | None = None) -> list[Point]:
        """Return all points so far, optionally of one of the traced processes."""
        counts: collections.Counter[str] = collections.Counter()
        found = []
        for caller, call in _BEGUN.findall(self._text):
            if pid is None or int(caller) == pid:
                counts[call] += 1
                found.append(Point(call, counts[call]))
        return found

    @property
    def injected_failures(self) -> int:
        """How many calls strace has made fail."""
        return self._text.count(_FAILED)

    @property
    def is_over(self) -> bool:
        """Whether a call has failed and a later one has succeeded, or the process has ended."""
        failed = [line.endswith(_FAILED) for line in _RETURNED.findall(self._text)]
        return any(failed) and (not failed[-1] or self.has_ended)

    @property
    def has_ended(self) -> bool:
        """Whether strace has ended, as it does with the last traced process."""
        return self._tracer.poll() is not None

    @property
    def was_killed(self) -> bool:
        """Whether a traced process was killed."""
        return "+++ killed by SIGKILL +++" in self._text


def strace(file: str, calls: str = "all", what: str = "") -> list[str]:
    """Return an strace command that writes calls to a file and manipulates them.

    `what` is an injection such as `error=EMFILE:when=3..5` or `signal=KILL:when=7`, or empty.
    """
    injection = ["-e", f"inject={calls}:{what}"] if what else []
    return ["strace", "-o", file, "-e", f"trace={calls}", *injection]


@contextlib.contextmanager
def attached(
    pid: int, calls: str = "all", what: str = "", *, follow: bool = False
) -> Iterator[Trace]:
    """Trace a running process during the block, with `follow` also the processes that it forks."""
    with tempfile.NamedTemporaryFile(prefix="tetrad-strace-") as file:
        command = [*strace(file.name, calls, what), "-p", str(pid), *["-f"] * follow]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            try:
                assert tracer.stderr is not None
                message = tracer.stderr.readline()
                assert "attached" in message, message
                yield Trace(file.name, tracer)
            finally:
                tracer.terminate()
                tracer.wait(TIMEOUT_SECONDS)
