"""Asks the load generator, load.c, for its figures.

Whatever goes wrong for a single session fails the whole figure: a rate with errors in it says
nothing.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.processes import MeasureError, busy_us, run, start_piped

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

AT_ONCE = 32
"""Sessions in progress at any moment, where sessions are counted by the second."""
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """The built load generator."""

    program: Path

    def sessions_per_second(self, port: int, count: int, seconds: int) -> float:
        """Run whole sessions, at most `count` and for at most so many seconds."""
        report = self._ask("sessions", port, count=count, at_once=AT_ONCE, seconds=seconds)
        return float(report["per_second"])

    def whole_sessions_per_second(self, port: int, count: int) -> float:
        """Run so many whole sessions, for figures that are divided by that number."""
        return float(self._serve(port, count, AT_ONCE)["per_second"])

    def busy_us_per_session(self, port: int, count: int) -> float:
        """Run whole sessions, and return the time of all processors that one takes, whosever.

        What a process is charged with leaves out who works for it: the logger, the network.
        """
        before = busy_us()
        self._serve(port, count, AT_ONCE)
        return (busy_us() - before) / count

    def faults_per_session(self, port: int, pid: int, count: int) -> float:
        """Run whole sessions, and return how many page faults a process and its children have.

        Children that it had before, as a logger, do not count.
        """
        sessions = self._command("sessions", port, count=count, at_once=AT_ONCE, seconds=60)
        if shutil.which("perf") is None:
            raise MeasureError("perf is not installed: apt-get install linux-perf")
        watch = ["perf", "stat", "-x,", "--log-fd=1", "-e", "page-faults", "-p", str(pid), "--"]
        report, _, figures = run([*watch, *sessions], PATIENCE_SECONDS).partition("\n")
        insist_on(count, checked(report))
        return float(figures.partition(",")[0]) / count

    def serve_apart(self, port: int, count: int) -> None:
        """Run whole sessions, each after the one before has ended."""
        self._serve(port, count, 1)

    def first_answer_ms(self, port: int, rate: int, seconds: int) -> dict[str, float]:
        """Send `rate` new clients a second; return percentiles of the first answer's time.

        It runs from connect() to the answer's last byte.
        """
        return dict(self._ask("paced", port, rate=rate, seconds=seconds)["first_answer_ms"])

    def round_trip_us(self, port: int, count: int) -> float:
        """Return the median, in microseconds, of `count` commands one after another."""
        return float(self._ask("pingpong", port, count=count)["trip_us"]["p50"])

    def commands_per_second(self, port: int, batches: int) -> float:
        """Return the rate of one session that sends 64 commands at a time."""
        return float(self._ask("pipeline", port, count=batches, batch=64)["commands_per_second"])

    @contextmanager
    def holding(self, port: int, clients: int, at_once: int = AT_ONCE) -> Iterator[Held]:
        """Have so many clients, answered once, for as long as the context lasts."""
        holder = start_piped(
            self._command(
                "hold", port, count=clients, at_once=at_once, seconds=int(PATIENCE_SECONDS)
            )
        )
        with holder:
            try:
                yield Held(holder, clients)
            finally:
                holder.kill()

    def _serve(self, port: int, count: int, at_once: int) -> dict[str, Any]:
        """Run so many whole sessions, and not one less."""
        report = self._ask("sessions", port, count=count, at_once=at_once, seconds=60)
        insist_on(count, report)
        return report

    def _ask(self, mode: str, port: int, **options: int) -> dict[str, Any]:
        return checked(run(self._command(mode, port, **options), PATIENCE_SECONDS))

    def _command(self, mode: str, port: int, **options: int) -> list[str]:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return [str(self.program), mode, f"--port={port}", *flags]


class Held:
    """Clients that were answered once and now wait; made by `Load.holding`."""

    def __init__(self, holder: subprocess.Popen[str], clients: int) -> None:
        """Wait until all are in."""
        self._holder = holder
        self.answered_again = 0
        said = holder.stderr.readline().strip() if holder.stderr else ""
        if said != f"held {clients}":
            self.release()  # which says what went wrong, if the load generator knows
            raise MeasureError(f"{clients} clients were to be held, not: {said}")

    def release(self) -> None:
        """Have every client ask once more and leave; count the answers in `answered_again`."""
        self.answered_again = int(checked(self._holder.communicate("\n")[0])["answered_again"])


def insist_on(count: int, report: dict[str, Any]) -> None:
    """Make sure that time was enough: what was spent is divided by all of them."""
    if report["finished"] < count:
        raise MeasureError(f"only {report['finished']} of {count} sessions were over in time")


def checked(text: str) -> dict[str, Any]:
    """Return what the load generator reports, provided that nothing went wrong."""
    try:
        report: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise MeasureError(f"the load generator ended without a report: {text}") from error
    if errors := report.get("errors", 0):
        raise MeasureError(
            f"{errors} of {report['opened']} sessions failed, the first: {report['first_error']}"
        )
    return report
