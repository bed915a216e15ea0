"""How figures are taken: in rounds over all servers, with medians, against targets. No I/O."""

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
    """What tetrad's figure has to be: at least or at most a limit, or so much of a peer's."""

    at_least: bool
    limit: float
    peer: str | None = None

    def __str__(self) -> str:
        """Return it as the tables show it."""
        sign = "≥" if self.at_least else "≤"
        return (
            f"{sign} {self.limit:g} times {self.peer}" if self.peer else f"{sign} {self.limit:,g}"
        )

    def reached(self, found: float) -> bool:
        """Tell whether a figure, or the ratio to the peer's, is good enough."""
        return found >= self.limit if self.at_least else found <= self.limit


def at_least(limit: float, peer: str | None = None) -> Target:
    """Return a target where more is better."""
    return Target(at_least=True, limit=limit, peer=peer)


def at_most(limit: float, peer: str | None = None) -> Target:
    """Return a target where less is better."""
    return Target(at_least=False, limit=limit, peer=peer)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what is measured, on whom, and what tetrad has to reach.

    `sample` takes one figure of one running server; `rounds` bounds how often, for what is slow.
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
    """What a row found: each server's figures, round by round, or why there are none."""

    row: Row
    figures: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def figure(self, server: str) -> float | None:
        """Return the median of a server's rounds."""
        return median(self.figures[server]) if self.figures.get(server) else None

    def found(self, target: Target) -> float | None:
        """Return what the limit is compared with: tetrad's figure or its ratio to the peer's."""
        own = self.figure(TETRAD)
        if own is None or target.peer is None:
            return own
        other = self.figure(target.peer)
        return own / other if other else None


def interleave(
    outcome: Outcome, samplers: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool
) -> None:
    """Take one figure of every server a round: what else the machine does meets all alike.

    The first round only warms up. A server that fails is left out from then on.
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
