"""Rounds over all servers, medians, and targets. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.processes import MeasureError
from benchmarks.servers import TETRAD, Handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.load import Load
    from benchmarks.servers import Instance

    Sample = Callable[[Load, Instance], float]


@dataclass(frozen=True, slots=True)
class Target:
    """What tetrad's figure must be: at least or at most a limit, or a multiple of a peer's."""

    at_least: bool
    limit: float
    peer: str | None = None

    def __str__(self) -> str:
        """Return the target as the tables show it."""
        sign = "≥" if self.at_least else "≤"
        return (
            f"{sign} {self.limit:g} times {self.peer}" if self.peer else f"{sign} {self.limit:,g}"
        )

    def reached(self, value: float) -> bool:
        """Tell whether a figure, or its ratio to the peer's, meets the target."""
        return value >= self.limit if self.at_least else value <= self.limit


def at_least(limit: float, peer: str | None = None) -> Target:
    """Return a target where higher is better."""
    return Target(at_least=True, limit=limit, peer=peer)


def at_most(limit: float, peer: str | None = None) -> Target:
    """Return a target where lower is better."""
    return Target(at_least=False, limit=limit, peer=peer)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: what is measured, for which servers, and tetrad's targets.

    `sample` measures one running server once; `rounds` limits how often, for slow rows.
    """

    key: str
    title: str
    unit: str
    sample: Sample
    targets: tuple[Target, ...]
    peers: tuple[str, ...] = ()
    handlers: Handlers = field(default_factory=Handlers)
    rounds: int = 1000


@dataclass(slots=True)
class Outcome:
    """The result of a row: each server's figures by round, or why it has none."""

    row: Row
    figures: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def figure(self, server: str) -> float | None:
        """Return the median of a server's rounds."""
        return median(self.figures[server]) if self.figures.get(server) else None

    def value(self, target: Target) -> float | None:
        """Return the value to compare with the limit: tetrad's figure or a ratio to a peer's."""
        own = self.figure(TETRAD)
        if own is None or target.peer is None:
            return own
        other = self.figure(target.peer)
        return own / other if other else None


def interleave(
    outcome: Outcome, samplers: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool
) -> None:
    """Measure every server once per round, so that other load on the machine affects all alike.

    The first round is a warm-up. A server that fails is left out from then on.
    """
    for turn in range(-1 if warm_up else 0, rounds):
        for server, sampler in samplers.items():
            if server in outcome.failures:
                continue
            try:
                figure = sampler()
            except MeasureError as error:
                outcome.failures[server] = str(error)
                outcome.figures.pop(server, None)
            else:
                if turn >= 0:
                    outcome.figures.setdefault(server, []).append(figure)
