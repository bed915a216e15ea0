"""A fleet that loses machines, simulated: `python -m benchmarks.fleet`, from the folder above this.

How many machines a load needs is arithmetic (CAPACITY.md); how long its clients wait when some of
the machines die is not: those who were held there come back to the others, at which new ones arrive
all the time, and a machine that holds more accepts more slowly. Nothing is measured here: the
constants are those that `python -m benchmarks.capacity` prints.

A machine is one queue, its backlog, which one master empties at the formula's rate. Who finds the
backlog full tries again after one second, then two, then four, as TCP does.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STEP_SECONDS = 0.01
BACKLOG = 1024
"""tetrad's default; net.core.somaxconn has to allow it."""
FIRST_RETRY_SECONDS = 1.0
LATEST_SECONDS = 600.0
"""When the simulation gives up waiting for everybody to be back."""
SPREADS = (0.0, 5.0, 30.0, 120.0)
"""Over how many seconds those who lost their machine come back."""

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many machines, each holding so many clients; `arrivals` is new clients a second in all."""

    machines: int
    held: int
    arrivals: float
    master: float
    master_each: float
    work: float
    work_each: float
    processors: int

    def rate(self, held: int) -> float:
        """Return how many clients a second a machine accepts that holds so many."""
        return min(
            _MILLION / (self.master + self.master_each * held),
            self.processors * _MILLION / (self.work + self.work_each * held),
        )


@dataclass(slots=True)
class Outcome:
    """What became of those who came back: seconds until they were in, and how many tried again."""

    waits: list[float] = field(default_factory=list)
    retries: int = 0
    over: float | None = None

    def at(self, share: float) -> float:
        """Return a percentile of the waits."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))]


@dataclass(slots=True)
class Machine:
    """One machine: who waits in its backlog, since when, and whether they had been in before."""

    held: int
    backlog: deque[tuple[float, bool]] = field(default_factory=deque)
    credit: float = 0.0

    def serve(self, fleet: Fleet, now: float, outcome: Outcome) -> None:
        """Accept whom there is time for in a step. New clients leave at once, others are held."""
        self.credit = min(self.credit, 1.0) + fleet.rate(self.held) * STEP_SECONDS
        while self.backlog and self.credit >= 1:
            self.credit -= 1
            since, is_back = self.backlog.popleft()
            if is_back:
                self.held += 1
                outcome.waits.append(now - since)


class Simulation:
    """What follows when `lost` of the machines die at once."""

    def __init__(self, fleet: Fleet, lost: int, spread: float, *, least: bool) -> None:
        self._fleet = fleet
        self._random = random.Random(1)  # noqa: S311 - repeatable, and no secret
        self._least = least
        self._left = [Machine(fleet.held) for _ in range(fleet.machines - lost)]
        moments = (self._random.uniform(0, spread) for _ in range(lost * fleet.held))
        self._coming = [(moment, moment, 0, True) for moment in moments]
        heapq.heapify(self._coming)
        self._expected = len(self._coming)

    def run(self) -> Outcome:
        """Go on until everybody is back."""
        outcome = Outcome()
        now, due = 0.0, 0.0
        while len(outcome.waits) < self._expected and now < LATEST_SECONDS:
            due += self._fleet.arrivals * STEP_SECONDS
            while due >= 1:
                due -= 1
                self._come((now, now, 0, False), outcome)
            while self._coming and self._coming[0][0] <= now:
                self._come(heapq.heappop(self._coming), outcome)
            now += STEP_SECONDS
            for machine in self._left:
                machine.serve(self._fleet, now, outcome)
        if len(outcome.waits) == self._expected:
            outcome.over = now
        return outcome

    def _come(self, who: tuple[float, float, int, bool], outcome: Outcome) -> None:
        """Have somebody enter a backlog, or try again later."""
        now, since, tries, is_back = who
        machine = self._choose()
        if len(machine.backlog) < BACKLOG:
            machine.backlog.append((since, is_back))
            return
        outcome.retries += 1
        later = now + FIRST_RETRY_SECONDS * 2**tries
        heapq.heappush(self._coming, (later, since, tries + 1, is_back))

    def _choose(self) -> Machine:
        """Return any machine, or of two the one with fewer clients: nearly as good as the least."""
        if not self._least:
            return self._random.choice(self._left)
        one, other = self._random.choice(self._left), self._random.choice(self._left)
        return min(one, other, key=lambda machine: machine.held + len(machine.backlog))


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, and print a line for each way to come back."""
    options = _parse(arguments)
    fleet = _fleet(options)
    sys.stdout.write(
        f"{options.lost} of {fleet.machines} machines die; the others hold {fleet.held:,} each, "
        f"take {fleet.arrivals / fleet.machines:,.0f} new clients/s each, could take "
        f"{fleet.rate(fleet.held):,.0f}\n"
    )
    for line in _lines(fleet, options.lost):
        sys.stdout.write(f"{line}\n")
    return 0


def _lines(fleet: Fleet, lost: int) -> Iterator[str]:
    for least in (False, True):
        for spread in SPREADS:
            outcome = Simulation(fleet, lost, spread, least=least).run()
            over = "not within 10 minutes" if outcome.over is None else f"{outcome.over:.0f} s"
            yield (
                f"  {'two choices' if least else 'any machine'}, back over {spread:>3.0f} s: "
                f"waits {outcome.at(0.5):6.2f} s at p50, {outcome.at(0.99):6.2f} at p99; "
                f"{outcome.retries:>7,} retries; all in after {over}"
            )


def _fleet(options: argparse.Namespace) -> Fleet:
    """Return the fleet of the options: `--load` is a share of what it could take."""
    shape = {name: getattr(options, name) for name in Fleet.__slots__ if name != "arrivals"}
    most = Fleet(**shape, arrivals=0.0).rate(options.held)
    return Fleet(**shape, arrivals=options.load * most * options.machines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    add = parser.add_argument
    add("--machines", type=int, default=20, metavar="N", help="in all (default: %(default)s)")
    add("--lost", type=int, default=1, metavar="N", help="that die (default: %(default)s)")
    add("--held", type=int, default=10_000, metavar="N", help="on each (default: %(default)s)")
    add("--load", type=float, default=0.5, metavar="SHARE", help="before (default: %(default)s)")
    add("--processors", type=int, default=4, metavar="N", help="of each (default: %(default)s)")
    for name, default in CONSTANTS.items():
        flag = f"--{name.replace('_', '-')}"
        add(flag, type=float, default=default, metavar="US", help="µs (default: %(default)s)")
    return parser.parse_args(arguments)


CONSTANTS = {"master": 146.0, "master_each": 0.0085, "work": 670.0, "work_each": 0.0238}
"""Of the run in CAPACITY.md."""


if __name__ == "__main__":
    sys.exit(main())
