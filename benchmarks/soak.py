"""A soak: `python -m benchmarks.soak --sessions 1000000`, from the folder above this one.

tetrad serves so many sessions, each with a fork of its own, and is afterwards what it was before:
the same descriptors, the same processes, no zombie, no more memory; and the log tells of every
session. The log is rotated on the way, so that the disk does not fill.
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
from benchmarks.processes import MeasureError, build, descendants, own_kib
from benchmarks.servers import TETRAD, Handlers, running, tetrad

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.servers import Instance

WARM_UP = 5_000
"""Sessions before anything is weighed: the first ones teach the master and the logger."""
BATCH = 20_000
"""Sessions between two rotations of the log."""
LINES_A_SESSION = 4
"""Connected, `time`, `quit`, disconnected."""
GROWTH_KIB = 1_024
"""By how much master or logger may be larger in the end."""
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What tetrad has while it serves nobody."""

    descriptors: int
    processes: int
    zombies: int
    master_kib: int
    logger_kib: int

    def __str__(self) -> str:
        """Return it as a line."""
        return (
            f"{self.descriptors} descriptors, {self.processes} processes, {self.zombies} zombies, "
            f"master {self.master_kib} KiB, logger {self.logger_kib} KiB"
        )

    def complaints(self, before: Reading) -> Iterator[str]:
        """Yield what is not as it was before."""
        for name in ("descriptors", "processes"):
            if getattr(self, name) != getattr(before, name):
                yield f"{name}: {getattr(before, name)} before, {getattr(self, name)} after"
        if self.zombies:
            yield f"{self.zombies} zombies"
        for name in ("master_kib", "logger_kib"):
            grown = getattr(self, name) - getattr(before, name)
            if grown > GROWTH_KIB:
                yield f"{name}: grown by {grown}, more than {GROWTH_KIB}"


class Soak:
    """A tetrad that is soaked, and what its log has told so far."""

    def __init__(self, server: Instance, load: Load) -> None:
        self._server = server
        self._load = load
        self._log = server.site.folder / "tetrad.log"
        self.events: Counter[str] = Counter()
        self.lost = 0
        self.served = 0

    def serve(self, sessions: int) -> None:
        """Serve so many sessions, and wait until all is quiet again."""
        self._load.sessions_per_second(self._server.port, sessions, int(PATIENCE_SECONDS * 60))
        self.served += sessions
        self._server.wait_for_children(1)

    def read(self) -> Reading:
        """Look at what it has."""
        master = self._server.leader.pid
        children = descendants(master)
        (logger,) = [pid for pid in children if _title(pid).startswith("tetrad: logger")]
        return Reading(
            descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (master, logger)),
            processes=1 + len(children),
            zombies=sum(_state(pid) == "Z" for pid in children),
            master_kib=own_kib(master),
            logger_kib=own_kib(logger),
        )

    def rotate(self) -> None:
        """Put the log aside, count what it tells, and throw it away."""
        # Twice: what the logger still has in its hands when its file is moved goes to the new one.
        self._have_reopened(self._log.stat().st_size)
        aside = self._log.with_suffix(".1")
        self._log.rename(aside)
        self._have_reopened(0)
        with aside.open("rb") as lines:
            for line in lines:
                event = json.loads(line)
                self.events[event["event"]] += 1
                self.lost += event.get("count", 0)
        aside.unlink()

    def _have_reopened(self, size: int) -> None:
        """Have the log opened anew: the line about that comes behind all others, and this size."""
        self._server.leader.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._tells_of_reopening(size):
            if time.monotonic() > deadline:
                raise MeasureError("the log was not opened anew")
            time.sleep(0.01)

    def _tells_of_reopening(self, size: int) -> bool:
        try:
            with self._log.open("rb") as log:
                log.seek(size)
                return b'"event":"log.reopened"' in log.read()
        except FileNotFoundError:
            return False

    def forget(self) -> None:
        """Begin to count here."""
        self.rotate()
        self.events.clear()
        self.lost = self.served = 0

    def complaints(self) -> Iterator[str]:
        """Yield what the log does not tell, or should not have to."""
        told = sum(count for event, count in self.events.items() if event.startswith("client."))
        if told + self.lost != self.served * LINES_A_SESSION:
            yield f"{self.served} sessions, but {told} lines about them and {self.lost} lost"
        if self.events["handler.lost"]:
            yield f"{self.events['handler.lost']} handlers lost"


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak tetrad, and return 1 if it is not what it was, else 0."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="tetrad-soak-") as folder:
        scratch = Path(folder)
        try:
            load = Load(build(Path(__file__).with_name("load.c"), scratch))
            with running(tetrad(options.tetrad, Handlers()), scratch, scratch) as server:
                complaints = list(_soak(Soak(server, load), options))
        except MeasureError as error:
            complaints = [str(error)]
    for complaint in complaints:
        _say(f"not as it was: {complaint}")
    return 1 if complaints else 0


def _soak(soak: Soak, options: argparse.Namespace) -> Iterator[str]:
    soak.serve(WARM_UP)
    soak.forget()
    before = after = soak.read()
    _say(f"before: {before}")
    began = time.monotonic()
    while soak.served < options.sessions and time.monotonic() - began < options.seconds:
        soak.serve(min(BATCH, options.sessions - soak.served))
        soak.rotate()
        after = soak.read()
        _say(f"{soak.served:>9,}: {after}")
    seconds = time.monotonic() - began
    soak.rotate()
    _say(f"after {soak.served:,} sessions in {seconds:.0f} s: {after}; {soak.lost} events lost")
    yield from after.complaints(before)
    yield from soak.complaints()


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
        help="how many (default: %(default)s)",
    )
    add(
        "--seconds", type=float, default=float("inf"), metavar="T", help="begin no batch after this"
    )
    add("--tetrad", default=default, metavar="PATH", help="the executable (default: %(default)s)")
    return parser.parse_args(arguments)


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
