"""Soak test: `python -m benchmarks.soak --sessions 1000000`, from the project's root folder.

tetrad serves this many sessions, with one fork each. Afterwards it must have the same descriptors
and processes, no zombie, no more memory, and a log with every session. The log is rotated
meanwhile, so that it does not fill the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load import Load
from benchmarks.processes import MeasureError, anonymous_kib, build, descendants
from benchmarks.servers import TETRAD, Handlers, running, tetrad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.servers import Instance

WARM_UP = 5_000
"""Sessions before the first measurement: they fill the caches of master and logger."""
BATCH = 20_000
"""Sessions between two rotations of the log."""
LINES_PER_SESSION = 4
"""Connected, `time`, `quit`, disconnected."""
GROWTH_KIB = {"master_kib": 1_024, "logger_kib": 8_192}
"""The allowed growth: the largest batch of the logger comes when the machine is busy."""
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The resources of tetrad without clients."""

    descriptors: int
    processes: int
    zombies: int
    master_kib: int
    logger_kib: int

    def __str__(self) -> str:
        """Return them as one line."""
        return (
            f"{self.descriptors} descriptors, {self.processes} processes, {self.zombies} zombies, "
            f"master {self.master_kib} KiB, logger {self.logger_kib} KiB"
        )

    def differences(self, before: Reading) -> Iterator[str]:
        """Yield the differences from the first reading."""
        for name in ("descriptors", "processes"):
            if getattr(self, name) != getattr(before, name):
                yield f"{name}: {getattr(before, name)} before, {getattr(self, name)} after"
        if self.zombies:
            yield f"{self.zombies} zombies"
        for name, most in GROWTH_KIB.items():
            grown = getattr(self, name) - getattr(before, name)
            if grown > most:
                yield f"{name}: grown by {grown}, more than {most}"


class Soak:
    """A tetrad under test, and the counts of its log so far."""

    def __init__(self, server: Instance, load: Load) -> None:
        self._server = server
        self._load = load
        self._log = server.site.folder / "tetrad.log"
        self.events: Counter[str] = Counter()
        self.lost = 0
        self.served = 0

    def serve(self, sessions: int) -> None:
        """Serve sessions, and wait until all handlers have ended."""
        self._load.sessions_per_second(self._server.port, sessions, int(TIMEOUT_SECONDS * 60))
        self.served += sessions
        self._server.wait_for_children(1)

    def read(self) -> Reading:
        """Read the resources."""
        master = self._server.leader.pid
        children = descendants(master)
        (logger,) = [pid for pid in children if _title(pid).startswith("tetrad: logger")]
        return Reading(
            descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (master, logger)),
            processes=1 + len(children),
            zombies=sum(_state(pid) == "Z" for pid in children),
            master_kib=anonymous_kib(master),
            logger_kib=anonymous_kib(logger),
        )

    def rotate(self) -> None:
        """Rename the log, count its events, and delete it."""
        # Twice, because lines that the logger has already read go to the new file.
        self._reopen(self._log.stat().st_size)
        aside = self._log.with_suffix(".1")
        self._log.rename(aside)
        self._reopen(0)
        with aside.open("rb") as lines:
            for line in lines:
                event = json.loads(line)
                self.events[event["event"]] += 1
                self.lost += event.get("count", 0)
        aside.unlink()

    def _reopen(self, size: int) -> None:
        """Have the log reopened, and wait for the line about it after offset `size`."""
        self._server.leader.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self._is_reopened(size):
            if time.monotonic() > deadline:
                raise MeasureError("the log was not reopened")
            time.sleep(0.01)

    def _is_reopened(self, size: int) -> bool:
        try:
            with self._log.open("rb") as log:
                log.seek(size)
                return b'"event":"log.reopened"' in log.read()
        except FileNotFoundError:
            return False

    def reset(self) -> None:
        """Start counting here."""
        self.rotate()
        self.events.clear()
        self.lost = self.served = 0

    def differences(self) -> Iterator[str]:
        """Yield what the log lacks, and handlers lost."""
        logged = sum(count for event, count in self.events.items() if event.startswith("client."))
        if logged + self.lost != self.served * LINES_PER_SESSION:
            yield f"{self.served} sessions, but {logged} lines about them and {self.lost} lost"
        if self.events["handler.lost"]:
            yield f"{self.events['handler.lost']} handlers lost"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the test; return 1 if something differs afterwards, else 0."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="tetrad-soak-") as folder:
        scratch = Path(folder)
        try:
            load = Load(build(Path(__file__).with_name("load.c"), scratch))
            with running(tetrad(options.tetrad, Handlers()), scratch, scratch) as server:
                differences = list(_soak(Soak(server, load), options))
        except MeasureError as error:
            differences = [str(error)]
    for difference in differences:
        _print(f"failed: {difference}")
    return 1 if differences else 0


def _soak(soak: Soak, options: argparse.Namespace) -> Iterator[str]:
    soak.serve(WARM_UP)
    soak.reset()
    before = after = soak.read()
    _print(f"before: {before}")
    began = time.monotonic()
    while soak.served < options.sessions and time.monotonic() - began < options.seconds:
        soak.serve(min(BATCH, options.sessions - soak.served))
        soak.rotate()
        after = soak.read()
        _print(f"{soak.served:>9,}: {after}")
    seconds = time.monotonic() - began
    soak.rotate()
    _print(f"after {soak.served:,} sessions in {seconds:.0f} s: {after}; {soak.lost} events lost")
    yield from after.differences(before)
    yield from soak.differences()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    beside = Path(sys.executable).with_name(TETRAD)
    default = str(beside) if beside.exists() else shutil.which(TETRAD) or TETRAD
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    add = parser.add_argument
    add(
        "--sessions",
        type=int,
        default=1_000_000,
        metavar="N",
        help="number of sessions (default: %(default)s)",
    )
    add(
        "--seconds",
        type=float,
        default=float("inf"),
        metavar="T",
        help="start no batch after T seconds",
    )
    add("--tetrad", default=default, metavar="PATH", help="the executable (default: %(default)s)")
    return parser.parse_args(arguments)


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
