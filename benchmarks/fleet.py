"""Simulates a fleet that loses machines: `python -m benchmarks.fleet`, from the project's root.

How many machines a load needs is arithmetic (CAPACITY.md). How long clients wait when machines fail
is not: the clients held there reconnect to the other machines, while new clients arrive, and a
machine that holds more clients accepts more slowly. Nothing is measured here: the constants are the
output of `python -m benchmarks.capacity`.

A machine is one queue, its backlog, which one master empties at the formula's rate. A client that
finds the backlog full retries after 1, 2, 4, … seconds, as TCP does.
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
"""tetrad's default; net.core.somaxconn must allow it."""
FIRST_RETRY_SECONDS = 1.0
LATEST_SECONDS = 600.0
"""When the simulation ends even if clients are still waiting."""
SPREADS = (0.0, 5.0, 30.0, 120.0)
"""Over how many seconds the clients of failed machines reconnect."""

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Fleet:
    """A number of machines with `held` clients each; `arrivals` is new clients/s in all."""

    machines: int
    held: int
    arrivals: float
    master: float
    master_each: float
    work: float
    work_each: float
    processors: int

    def rate(self, held: int) -> float:
        """Return how many clients per second a machine with so many held clients accepts."""
        return min(
            _MILLION / (self.master + self.master_each * held),
            self.processors * _MILLION / (self.work + self.work_each * held),
        )


@dataclass(slots=True)
class Outcome:
    """The reconnected clients: seconds until each was accepted, and the number of retries."""

    waits: list[float] = field(default_factory=list)
    retries: int = 0
    finished: float | None = None

    def at(self, share: float) -> float:
        """Return a percentile of the waits."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))]


@dataclass(slots=True)
class Machine:
    """One machine: its backlog has the arrival time of each client, and whether it reconnects."""

    held: int
    backlog: deque[tuple[float, bool]] = field(default_factory=deque)
    credit: float = 0.0

    def serve(self, fleet: Fleet, now: float, outcome: Outcome) -> None:
        """Accept clients for one step. New clients disconnect at once, others are held."""
        self.credit = min(self.credit, 1.0) + fleet.rate(self.held) * STEP_SECONDS
        while self.backlog and self.credit >= 1:
            self.credit -= 1
            since, is_back = self.backlog.popleft()
            if is_back:
                self.held += 1
                outcome.waits.append(now - since)


class Simulation:
    """What follows when `lost` of the machines fail at once."""

    def __init__(self, fleet: Fleet, lost: int, spread: float, *, least: bool) -> None:
        self._fleet = fleet
        self._random = random.Random(1)  # noqa: S311 - repeatable, and no secret
        self._least = least
        self._remaining = [Machine(fleet.held) for _ in range(fleet.machines - lost)]
        moments = (self._random.uniform(0, spread) for _ in range(lost * fleet.held))
        self._reconnecting = [(moment, moment, 0, True) for moment in moments]
        heapq.heapify(self._reconnecting)
        self._expected = len(self._reconnecting)

    def run(self) -> Outcome:
        """Run until all clients have reconnected."""
        outcome = Outcome()
        now, due = 0.0, 0.0
        while len(outcome.waits) < self._expected and now < LATEST_SECONDS:
            due += self._fleet.arrivals * STEP_SECONDS
            while due >= 1:
                due -= 1
                self._connect((now, now, 0, False), outcome)
            while self._reconnecting and self._reconnecting[0][0] <= now:
                self._connect(heapq.heappop(self._reconnecting), outcome)
            now += STEP_SECONDS
            for machine in self._remaining:
                machine.serve(self._fleet, now, outcome)
        if len(outcome.waits) == self._expected:
            outcome.finished = now
        return outcome

    def _connect(self, attempt: tuple[float, float, int, bool], outcome: Outcome) -> None:
        """Put a client into a backlog, or let it retry later."""
        now, since, tries, is_back = attempt
        machine = self._choose()
        if len(machine.backlog) < BACKLOG:
            machine.backlog.append((since, is_back))
            return
        outcome.retries += 1
        later = now + FIRST_RETRY_SECONDS * 2**tries
        heapq.heappush(self._reconnecting, (later, since, tries + 1, is_back))

    def _choose(self) -> Machine:
        """Return a random machine, or the one of two random machines with fewer clients."""
        if not self._least:
            return self._random.choice(self._remaining)
        one, other = self._random.choice(self._remaining), self._random.choice(self._remaining)
        return min(one, other, key=lambda machine: machine.held + len(machine.backlog))


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, and print a line for each way to reconnect."""
    options = _parse(arguments)
    fleet = _fleet(options)
    sys.stdout.write(
        f"{options.lost} of {fleet.machines} machines fail; the others hold {fleet.held:,} each, "
        f"accept {fleet.arrivals / fleet.machines:,.0f} new clients/s each, could accept "
        f"{fleet.rate(fleet.held):,.0f}\n"
    )
    for line in _lines(fleet, options.lost):
        sys.stdout.write(f"{line}\n")
    return 0


def _lines(fleet: Fleet, lost: int) -> Iterator[str]:
    for least in (False, True):
        for spread in SPREADS:
            outcome = Simulation(fleet, lost, spread, least=least).run()
            end = (
                "not all accepted within 10 minutes"
                if outcome.finished is None
                else f"all accepted after {outcome.finished:.0f} s"
            )
            yield (
                f"  {'two choices' if least else 'any machine'}, reconnect over {spread:>3.0f} s: "
                f"waits {outcome.at(0.5):6.2f} s at p50, {outcome.at(0.99):6.2f} at p99; "
                f"{outcome.retries:>7,} retries; {end}"
            )


def _fleet(options: argparse.Namespace) -> Fleet:
    """Return the fleet of the options; `--load` is a share of the maximum rate."""
    shape = {name: getattr(options, name) for name in Fleet.__slots__ if name != "arrivals"}
    most = Fleet(**shape, arrivals=0.0).rate(options.held)
    return Fleet(**shape, arrivals=options.load * most * options.machines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    add = parser.add_argument
    add(
        "--machines",
        type=int,
        default=20,
        metavar="N",
        help="machines in the fleet (default: %(default)s)",
    )
    add(
        "--lost", type=int, default=1, metavar="N", help="machines that fail (default: %(default)s)"
    )
    add(
        "--held",
        type=int,
        default=10_000,
        metavar="N",
        help="clients held per machine (default: %(default)s)",
    )
    add(
        "--load",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="load before the failure (default: %(default)s)",
    )
    add(
        "--processors",
        type=int,
        default=4,
        metavar="N",
        help="processors per machine (default: %(default)s)",
    )
    for name, default in CONSTANTS.items():
        flag = f"--{name.replace('_', '-')}"
        add(flag, type=float, default=default, metavar="US", help="µs (default: %(default)s)")
    return parser.parse_args(arguments)


CONSTANTS = {"master": 146.0, "master_each": 0.0085, "work": 670.0, "work_each": 0.0238}
"""From the run in CAPACITY.md."""


if __name__ == "__main__":
    sys.exit(main())
