"""The main command: `python -m benchmarks`, run from the project's root folder."""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import report, rows
from benchmarks.load import Load
from benchmarks.measure import Outcome, interleave
from benchmarks.processes import MeasureError, build
from benchmarks.samples import FULL, QUICK
from benchmarks.servers import ALL_PEERS, TETRAD, running, tetrad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.measure import Row
    from benchmarks.servers import Server

HERE = Path(__file__).parent
SOURCES = (HERE / "load.c", HERE / "peers" / "fork.c", HERE / "peers" / "handler.c")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; return 1 if a row failed or a target was missed, else 0."""
    options = _parse(arguments)
    scale = QUICK if options.quick else FULL
    chosen = [row for row in rows.rows(scale) if not options.rows or row.key in options.rows]
    _raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="tetrad-benchmarks-") as folder:
        scratch = Path(folder)
        for source in SOURCES:
            build(source, scratch)
        rounds = options.rounds or scale.rounds
        outcomes = [_measure(row, options, rounds, scratch) for row in chosen]
    report.write(outcomes, options.output)
    sys.stdout.write(f"\nwritten to {options.output}\n")
    return 0 if all(map(_passed, outcomes)) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    keys = [row.key for row in rows.rows(FULL)]
    names = [TETRAD, *(peer.name for peer in ALL_PEERS)]
    beside = Path(sys.executable).with_name(TETRAD)
    default = str(beside) if beside.exists() else TETRAD
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add(
        "--tetrad",
        type=_absolute,
        default=default,
        metavar="PATH",
        help=f"the executable to measure (default: {default})",
    )
    add(
        "--output",
        type=Path,
        default=HERE / "results",
        metavar="DIR",
        help="folder for tables and charts",
    )
    add(
        "--rows", nargs="+", choices=keys, metavar="ROW", help=f"only these rows: {', '.join(keys)}"
    )
    add(
        "--only",
        nargs="+",
        choices=names,
        metavar="SERVER",
        help=f"only these servers: {', '.join(names)}",
    )
    add(
        "--skip",
        nargs="+",
        choices=names,
        metavar="SERVER",
        default=[],
        help="all servers except these",
    )
    add(
        "--rounds",
        type=int,
        metavar="N",
        help=f"rounds over all servers (default: {FULL.rounds})",
    )
    add(
        "--quick",
        action="store_true",
        help="only show that everything runs; the figures mean little",
    )
    return parser.parse_args(arguments)


def _absolute(executable: str) -> str:
    """Return the absolute path of an executable, because servers run in folders of their own."""
    found = shutil.which(executable)
    return str(Path(found).absolute()) if found else executable


def _raise_descriptor_limit() -> None:
    """Raise the descriptor limit to the hard limit; the servers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _measure(row: Row, options: argparse.Namespace, rounds: int, programs: Path) -> Outcome:
    """Run one row's servers together, and measure them in rounds."""
    outcome = Outcome(row)
    load = Load(programs / "load")
    sys.stdout.write(f"\n{row.title}\n")
    with tempfile.TemporaryDirectory(dir=programs) as scratch, ExitStack() as stack:
        samplers = {}
        for server in _servers(row, options):
            try:
                instance = stack.enter_context(running(server, programs, Path(scratch)))
            except MeasureError as error:
                outcome.failures[server.name] = str(error)
            else:
                samplers[server.name] = partial(row.sample, load, instance)
        interleave(outcome, samplers, min(rounds, row.rounds), warm_up=row.rounds > 1)
    _print_outcome(outcome)
    return outcome


def _servers(row: Row, options: argparse.Namespace) -> Iterator[Server]:
    """Yield the row's servers that are selected and installed."""
    for server in (
        tetrad(options.tetrad, row.handlers),
        *(peer for peer in ALL_PEERS if peer.name in row.peers),
    ):
        if server.name in options.skip or (options.only and server.name not in options.only):
            continue
        if server.installed:
            yield server
        else:
            sys.stdout.write(f"  {server.name}: {server.needs} is not installed\n")


def _print_outcome(outcome: Outcome) -> None:
    lines = [report.figures_line(outcome), *report.target_lines(outcome)]
    lines += [f"{server} failed: {why}" for server, why in outcome.failures.items()]
    sys.stdout.write("".join(f"  {line}\n" for line in lines if line))
    sys.stdout.flush()


def _passed(outcome: Outcome) -> bool:
    found = [(target, outcome.value(target)) for target in outcome.row.targets]
    return not outcome.failures and all(
        value is None or target.reached(value) for target, value in found
    )


if __name__ == "__main__":
    sys.exit(main())
