"""Writes the results: a Markdown table, the figures as JSON, and a chart for each row."""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING

from benchmarks.chart import Bar, draw
from benchmarks.servers import TETRAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.measure import Outcome, Target

NO_DECIMALS_FROM = 100
"""From this value on, decimals are not shown."""


def number(value: float | None) -> str:
    """Return a figure with its significant digits."""
    if value is None:
        return "—"
    return f"{value:,.0f}" if value >= NO_DECIMALS_FROM else f"{value:.3g}"


def verdict(outcome: Outcome, target: Target) -> str:
    """Return whether a target was reached, as text."""
    value = outcome.value(target)
    if value is None:
        return "not measured"
    return "reached" if target.reached(value) else "**not reached**"


def figures_line(outcome: Outcome) -> str:
    """Return the medians of a row in one line."""
    unit = outcome.row.unit
    return ", ".join(
        f"{server} {number(outcome.figure(server))} {unit}" for server in outcome.figures
    )


def target_lines(outcome: Outcome) -> Iterator[str]:
    """Yield a line for each target of a row."""
    for target in outcome.row.targets:
        yield f"{target}: {number(outcome.value(target))}, {verdict(outcome, target)}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return two tables: all medians, and tetrad's targets."""
    servers = list(dict.fromkeys(server for outcome in outcomes for server in outcome.figures))
    lines = [f"Measured on {machine()}. Medians.", ""]
    lines += _table(["", "unit", *servers], [_medians(outcome, servers) for outcome in outcomes])
    lines += _table(
        ["", "target", "value", ""], [cells for outcome in outcomes for cells in _targets(outcome)]
    )
    lines += [f"* {failure}" for outcome in outcomes for failure in _failures(outcome)]
    return "\n".join(lines) + "\n"


def _medians(outcome: Outcome, servers: Sequence[str]) -> list[str]:
    return [
        outcome.row.title,
        outcome.row.unit,
        *(number(outcome.figure(server)) for server in servers),
    ]


def _targets(outcome: Outcome) -> Iterator[list[str]]:
    for target in outcome.row.targets:
        yield [
            outcome.row.title,
            str(target),
            number(outcome.value(target)),
            verdict(outcome, target),
        ]


def _failures(outcome: Outcome) -> Iterator[str]:
    for server, why in outcome.failures.items():
        yield f"{outcome.row.key}, {server}: {why}"


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def machine() -> str:
    """Return a description of the machine without its name."""
    python, kernel = platform.python_version(), platform.release().split("-")[0]
    return f"{os.cpu_count()} cores, Linux {kernel}, {platform.machine()}, Python {python}"


def write(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write all files into a folder, which is created if necessary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(markdown(outcomes))
    (folder / "results.json").write_text(json.dumps(_as_json(outcomes), indent=2) + "\n")
    for outcome in outcomes:
        if outcome.figures:
            (folder / f"{outcome.row.key}.svg").write_text(chart(outcome))


def chart(outcome: Outcome) -> str:
    """Return a chart of a row's medians as SVG."""
    unit = outcome.row.unit
    medians = {server: outcome.figure(server) or 0.0 for server in outcome.figures}
    bars = [
        Bar(server, value, f"{number(value)} {unit}", server == TETRAD)
        for server, value in medians.items()
    ]
    return draw(outcome.row.title.replace("`", ""), bars)


def _as_json(outcomes: Sequence[Outcome]) -> dict[str, object]:
    return {"machine": machine(), "rows": [_row_as_json(outcome) for outcome in outcomes]}


def _row_as_json(outcome: Outcome) -> dict[str, object]:
    row = outcome.row
    return {
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "figures": outcome.figures,
        "medians": {server: outcome.figure(server) for server in outcome.figures},
        "failures": outcome.failures,
        "targets": [_target_as_json(outcome, target) for target in row.targets],
    }


def _target_as_json(outcome: Outcome, target: Target) -> dict[str, object]:
    value = outcome.value(target)
    return {
        "target": str(target),
        "found": value,
        "reached": None if value is None else target.reached(value),
    }
