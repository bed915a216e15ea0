"""What one machine carries: `python -m benchmarks.capacity`, from the project's root folder.

It measures the five constants of a formula, and then checks the formula with other numbers of held
clients and with one processor. The exit status is 1 if a prediction is off by more than
`TOLERANCE`.

While the kernel's DAMON scans which memory is used, every fork and exit waits for its locks. The
formula is about the remaining time; each run prints DAMON's share.
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
from benchmarks.samples import SETTLE_SECONDS, held_clients
from benchmarks.servers import TETRAD, Handlers, running, tetrad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.servers import Instance

HELD = 4_000
"""Clients held for the second measurement of the constants; the first one has none."""
ROUNDS = 5
SESSIONS = 2_000
TOLERANCE = 0.2
"""The largest allowed error of a prediction, relative to the measured value: these machines are
shared."""
OWN_MIB = 256
"""The memory that the system itself needs."""
SIZES = ((2, 4), (4, 16), (16, 64))
"""Machines to predict: processors, GiB."""

_MILLION = 1_000_000


class Rate(NamedTuple):
    """The cost of sessions: `work` µs each, of which `master` µs are the master's.

    `work` is the CPU time of all processors, load generator and network included, DAMON not;
    `watched` is the share of the time in which DAMON was active.
    """

    per_second: float
    work: float
    master: float
    watched: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """A run with `held` clients held; `memory` is KiB per client, both ends included."""

    held: int
    rate: Rate
    memory: float


@dataclass(frozen=True, slots=True)
class Formula:
    """Sessions per second and clients held, by the size of a machine.

    A session costs `work` µs, and `work_each` µs more for each held client; of these the master,
    which is one process, needs `master` and `master_each`. A held client takes `memory` KiB.
    """

    work: float
    work_each: float
    master: float
    master_each: float
    memory: float

    @classmethod
    def of(cls, alone: Measurement, crowded: Measurement) -> Formula:
        """Compute the constants from two runs."""
        return cls(
            work=alone.rate.work,
            work_each=(crowded.rate.work - alone.rate.work) / crowded.held,
            master=alone.rate.master,
            master_each=(crowded.rate.master - alone.rate.master) / crowded.held,
            memory=crowded.memory,
        )

    def sessions(self, held: int, processors: int) -> float:
        """Return the sessions per second with `held` clients held."""
        by_work = processors * _MILLION / (self.work + self.work_each * held)
        return min(by_work, _MILLION / (self.master + self.master_each * held))

    def clients(self, gib: float) -> int:
        """Return how many clients can be held."""
        return int((gib * 1024 - OWN_MIB) * 1024 / self.memory)

    def __str__(self) -> str:
        """Return the formula as text."""
        work = f"{self.work:.0f} + {self.work_each:.4f} x held"
        master = f"{self.master:.0f} + {self.master_each:.4f} x held"
        return (
            f"sessions/s = min(processors x 10^6 / ({work}), 10^6 / ({master}))\n"
            f"clients    = (memory - {OWN_MIB} MiB) / {self.memory:.0f} KiB"
        )


class Machine:
    """This machine with a running tetrad."""

    def __init__(self, executable: str, scratch: Path) -> None:
        self._scratch = scratch
        self._server = tetrad(executable, Handlers())
        self._load = Load(build(Path(__file__).with_name("load.c"), scratch))

    def measure(self, held: int, processors: set[int]) -> Measurement:
        """Run with `held` clients held, on these processors, load generator included."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)
        try:
            with (
                tempfile.TemporaryDirectory(dir=self._scratch) as folder,
                running(self._server, self._scratch, Path(folder)) as server,
            ):
                return self._measure(server, held)
        finally:
            os.sched_setaffinity(0, before)

    def _measure(self, server: Instance, held: int) -> Measurement:
        self._rate(server)  # warm-up
        empty = system_kib()
        with held_clients(self._load, server, max(held, 1)):
            time.sleep(SETTLE_SECONDS)
            memory = (system_kib() - empty) / max(held, 1)
            rounds = [self._rate(server) for _ in range(ROUNDS)]
        return Measurement(held, Rate(*map(median, zip(*rounds, strict=True))), memory)

    def _rate(self, server: Instance) -> Rate:
        """Run sessions, and return their cost."""

        def clocks() -> tuple[float, ...]:
            master, damon = cpu_us(server.leader.pid), damon_us()
            return time.monotonic() * _MILLION, busy_us() - damon, master, damon

        before = clocks()
        rate = self._load.exact_sessions_per_second(server.port, SESSIONS)
        took, work, master, damon = (b - a for a, b in zip(before, clocks(), strict=True))
        return Rate(rate, work / SESSIONS, master / SESSIONS, damon / took)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the constants, and check the formula."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="tetrad-capacity-") as folder:
        try:
            machine = Machine(options.tetrad, Path(folder))
            misses = list(_run(machine))
        except MeasureError as error:
            _print(str(error))
            return 1
    return 1 if any(miss > TOLERANCE for miss in misses) else 0


def _run(machine: Machine) -> Iterator[float]:
    """Print all results; yield the relative error of each prediction."""
    all_processors = os.sched_getaffinity(0)
    one = {min(all_processors)}
    formula = Formula.of(machine.measure(0, all_processors), machine.measure(HELD, all_processors))
    _print(
        f"fitted with 0 and {HELD:,} clients held, on {len(all_processors)} processors:\n{formula}"
    )
    _print("\nnot fitted to:")
    for held, processors in (
        (HELD // 2, all_processors),
        (2 * HELD, all_processors),
        (0, one),
        (HELD // 2, one),
    ):
        measured = machine.measure(held, processors)
        description = f"{held:,} held, {len(processors)} processor{'s' * (len(processors) > 1)}"
        watched = measured.rate.watched
        predicted = formula.sessions(held, len(processors)) * (1 - watched)
        if watched:
            description += f", DAMON active {watched:.0%} of the time"
        yield _compare(f"{description}: sessions/s", predicted, measured.rate.per_second)
        if held:
            yield _compare(f"{description}: KiB per client", formula.memory, measured.memory)
    _print("\nby the formula:")
    for processors_, gib in SIZES:
        most = formula.clients(gib)
        _print(
            f"{processors_:>3} processors, {gib:>3} GiB: "
            f"{formula.sessions(0, processors_):>7,.0f} sessions/s with none held, "
            f"{formula.sessions(most // 2, processors_):>5,.0f} with {most // 2:,}; "
            f"at most {most:,} clients"
        )


def _compare(what: str, predicted: float, measured: float) -> float:
    off = abs(predicted - measured) / measured
    _print(f"  {what}: {predicted:,.0f} predicted, {measured:,.0f} measured,  {off:.0%} off")
    return off


def cpu_us(pid: int) -> float:
    """Return the CPU time of a process in µs."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def parser_with_tetrad(program: str, text: str | None) -> argparse.ArgumentParser:
    """Return an argument parser with the option --tetrad."""
    beside = Path(sys.executable).with_name(TETRAD)
    default = str(beside) if beside.exists() else shutil.which(TETRAD) or TETRAD
    parser = argparse.ArgumentParser(prog=program, description=text)
    parser.add_argument(
        "--tetrad", default=default, metavar="PATH", help="the executable (default: %(default)s)"
    )
    return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    return parser_with_tetrad("python -m benchmarks.capacity", __doc__).parse_args(arguments)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
