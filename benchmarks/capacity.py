"""What one machine carries: `python -m benchmarks.capacity`, from the folder above this one.

A formula with five constants, which are measured here, and then runs that it was not fitted to:
with other numbers of clients held, and on one processor instead of all. The exit status is 1 when
the formula is off by more than `TOLERANCE`.

While the kernel's DAMON looks which memory is used, where it does, whoever forks or ends waits for
its locks. So its time is nobody's: the formula is about the rest, and what that is, each run says.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.load import Load
from benchmarks.processes import MeasureError, build, busy_us, damon_us, system_kib
from benchmarks.samples import SETTLE_SECONDS, crowd
from benchmarks.servers import TETRAD, Handlers, running, tetrad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.servers import Instance

HELD = 4_000
"""Clients held where the constants are measured, beside none."""
ROUNDS = 5
SESSIONS = 2_000
TOLERANCE = 0.2
"""How far off a prediction may be, as a share of what is measured: these machines are shared."""
OWN_MIB = 256
"""What a machine needs for itself."""
SIZES = ((2, 4), (4, 16), (16, 64))
"""Machines to predict for: processors, GiB."""

_MILLION = 1_000_000


class Rate(NamedTuple):
    """What sessions took: `work` and the `master`'s part of it in µs each.

    `work` is of all processors together, load generator and network included, DAMON not;
    `watched` is for what share of the time DAMON was at work.
    """

    per_second: float
    work: float
    master: float
    watched: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a run with so many clients held showed; `memory` is KiB a client, both ends of it."""

    held: int
    rate: Rate
    memory: float


@dataclass(frozen=True, slots=True)
class Formula:
    """Sessions a second and clients at once, of the size of a machine.

    A session costs `work` µs and `work_each` more for each client held; of these the master, which
    is one process, needs `master` and `master_each`. A client that is held takes `memory` KiB.
    """

    work: float
    work_each: float
    master: float
    master_each: float
    memory: float

    @classmethod
    def of(cls, alone: Found, crowded: Found) -> Formula:
        """Lay it through two runs."""
        return cls(
            work=alone.rate.work,
            work_each=(crowded.rate.work - alone.rate.work) / crowded.held,
            master=alone.rate.master,
            master_each=(crowded.rate.master - alone.rate.master) / crowded.held,
            memory=crowded.memory,
        )

    def sessions(self, held: int, processors: int) -> float:
        """Return how many sessions a second there can be, beside so many clients held."""
        all_of_them = processors * _MILLION / (self.work + self.work_each * held)
        return min(all_of_them, _MILLION / (self.master + self.master_each * held))

    def clients(self, gib: float) -> int:
        """Return how many clients can be held at once."""
        return int((gib * 1024 - OWN_MIB) * 1024 / self.memory)

    def __str__(self) -> str:
        """Return it as it is written on paper."""
        work = f"{self.work:.0f} + {self.work_each:.4f} x held"
        master = f"{self.master:.0f} + {self.master_each:.4f} x held"
        return (
            f"sessions/s = min(processors x 10^6 / ({work}), 10^6 / ({master}))\n"
            f"clients    = (memory - {OWN_MIB} MiB) / {self.memory:.0f} KiB"
        )


class Machine:
    """This machine, serving."""

    def __init__(self, executable: str, scratch: Path) -> None:
        self._scratch = scratch
        self._server = tetrad(executable, Handlers())
        self._load = Load(build(Path(__file__).with_name("load.c"), scratch))

    def find(self, held: int, processors: set[int]) -> Found:
        """Run with so many clients held, on these processors, load generator and all."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)
        try:
            with (
                tempfile.TemporaryDirectory(dir=self._scratch) as folder,
                running(self._server, self._scratch, Path(folder)) as server,
            ):
                return self._find(server, held)
        finally:
            os.sched_setaffinity(0, before)

    def _find(self, server: Instance, held: int) -> Found:
        self._rate(server)  # the first one only warms up
        empty = system_kib()
        with crowd(self._load, server, max(held, 1)):
            time.sleep(SETTLE_SECONDS)
            memory = (system_kib() - empty) / max(held, 1)
            rounds = [self._rate(server) for _ in range(ROUNDS)]
        return Found(held, Rate(*map(median, zip(*rounds, strict=True))), memory)

    def _rate(self, server: Instance) -> Rate:
        """Run sessions, and see what they take."""

        def clocks() -> tuple[float, ...]:
            master, damon = worked_us(server.leader.pid), damon_us()
            return time.monotonic() * _MILLION, busy_us() - damon, master, damon

        before = clocks()
        rate = self._load.whole_sessions_per_second(server.port, SESSIONS)
        took, work, master, damon = (b - a for a, b in zip(before, clocks(), strict=True))
        return Rate(rate, work / SESSIONS, master / SESSIONS, damon / took)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fit and check."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="tetrad-capacity-") as folder:
        try:
            machine = Machine(options.tetrad, Path(folder))
            misses = list(_study(machine))
        except MeasureError as error:
            _say(str(error))
            return 1
    return 1 if any(miss > TOLERANCE for miss in misses) else 0


def _study(machine: Machine) -> Iterator[float]:
    """Say all there is to say; yield by what share each prediction is off."""
    every = os.sched_getaffinity(0)
    one = {min(every)}
    formula = Formula.of(machine.find(0, every), machine.find(HELD, every))
    _say(f"fitted with 0 and {HELD:,} clients held, on {len(every)} processors:\n{formula}")
    _say("\nnot fitted to:")
    for held, processors in ((HELD // 2, every), (2 * HELD, every), (0, one), (HELD // 2, one)):
        found = machine.find(held, processors)
        where = f"{held:,} held, {len(processors)} processor{'s' * (len(processors) > 1)}"
        watched = found.rate.watched
        predicted = formula.sessions(held, len(processors)) * (1 - watched)
        if watched:
            where += f", DAMON at work for {watched:.0%} of the time"
        yield _compare(f"{where}: sessions/s", predicted, found.rate.per_second)
        if held:
            yield _compare(f"{where}: KiB a client", formula.memory, found.memory)
    _say("\nby the formula:")
    for processors_, gib in SIZES:
        most = formula.clients(gib)
        _say(
            f"{processors_:>3} processors, {gib:>3} GiB: "
            f"{formula.sessions(0, processors_):>7,.0f} sessions/s with nobody held, "
            f"{formula.sessions(most // 2, processors_):>5,.0f} with {most // 2:,}; "
            f"{most:,} clients at most"
        )


def _compare(what: str, predicted: float, found: float) -> float:
    off = abs(predicted - found) / found
    _say(f"  {what}: {predicted:,.0f} predicted, {found:,.0f} found, {off:.0%} off")
    return off


def worked_us(pid: int) -> float:
    """Return for how many µs a process has had a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def add_tetrad(program: str, text: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows which executable to measure."""
    beside = Path(sys.executable).with_name(TETRAD)
    default = str(beside) if beside.exists() else shutil.which(TETRAD) or TETRAD
    parser = argparse.ArgumentParser(prog=program, description=text)
    parser.add_argument(
        "--tetrad", default=default, metavar="PATH", help="the executable (default: %(default)s)"
    )
    return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    return add_tetrad("python -m benchmarks.capacity", __doc__).parse_args(arguments)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
