"""Runs the load generator, load.c, and reads its figures.

If a single session fails, the whole figure fails: a rate with errors in it means nothing.
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
"""Concurrent sessions where sessions per second are measured."""
TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """The compiled load generator."""

    program: Path

    def sessions_per_second(self, port: int, count: int, seconds: int) -> float:
        """Run complete sessions, at most `count` and for at most `seconds`."""
        report = self._ask("sessions", port, count=count, at_once=AT_ONCE, seconds=seconds)
        return float(report["per_second"])

    def exact_sessions_per_second(self, port: int, count: int) -> float:
        """Run exactly `count` sessions, for figures that are divided by that number."""
        return float(self._serve(port, count, AT_ONCE)["per_second"])

    def busy_us_per_session(self, port: int, count: int) -> float:
        """Run sessions, and return the CPU time of the whole system per session in µs.

        The CPU time of single processes would leave out the logger and the network.
        """
        before = busy_us()
        self._serve(port, count, AT_ONCE)
        return (busy_us() - before) / count

    def faults_per_session(self, port: int, pid: int, count: int) -> float:
        """Run sessions, and return the page faults per session of a process and its new children.

        Children that it had before, such as a logger, are not counted.
        """
        sessions = self._command("sessions", port, count=count, at_once=AT_ONCE, seconds=60)
        if shutil.which("perf") is None:
            raise MeasureError("perf is not installed: apt-get install linux-perf")
        watch = ["perf", "stat", "-x,", "--log-fd=1", "-e", "page-faults", "-p", str(pid), "--"]
        report, _, figures = run([*watch, *sessions], TIMEOUT_SECONDS).partition("\n")
        check_finished(count, parse_report(report))
        return float(figures.partition(",")[0]) / count

    def run_one_by_one(self, port: int, count: int) -> None:
        """Run sessions one after another."""
        self._serve(port, count, 1)

    def first_answer_ms(self, port: int, rate: int, seconds: int) -> dict[str, float]:
        """Send `rate` new clients per second; return percentiles of the first answer's ms.

        The time is from connect() to the last byte of the answer.
        """
        return dict(self._ask("paced", port, rate=rate, seconds=seconds)["first_answer_ms"])

    def round_trip_us(self, port: int, count: int) -> float:
        """Return the median round trip in µs of `count` commands, one at a time."""
        return float(self._ask("pingpong", port, count=count)["trip_us"]["p50"])

    def commands_per_second(self, port: int, batches: int) -> float:
        """Return the commands per second of one session that sends 64 at once."""
        return float(self._ask("pipeline", port, count=batches, batch=64)["commands_per_second"])

    @contextmanager
    def holding(self, port: int, clients: int, at_once: int = AT_ONCE) -> Iterator[Held]:
        """Hold so many clients, answered once, during the block."""
        holder = start_piped(
            self._command(
                "hold", port, count=clients, at_once=at_once, seconds=int(TIMEOUT_SECONDS)
            )
        )
        with holder:
            try:
                yield Held(holder, clients)
            finally:
                holder.kill()

    def _serve(self, port: int, count: int, at_once: int) -> dict[str, Any]:
        """Run exactly `count` sessions."""
        report = self._ask("sessions", port, count=count, at_once=at_once, seconds=60)
        check_finished(count, report)
        return report

    def _ask(self, mode: str, port: int, **options: int) -> dict[str, Any]:
        return parse_report(run(self._command(mode, port, **options), TIMEOUT_SECONDS))

    def _command(self, mode: str, port: int, **options: int) -> list[str]:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return [str(self.program), mode, f"--port={port}", *flags]


class Held:
    """Clients that were answered once and wait; created by `Load.holding`."""

    def __init__(self, holder: subprocess.Popen[str], clients: int) -> None:
        """Wait until all clients are connected and answered."""
        self._holder = holder
        self.answered_again = 0
        message = holder.stderr.readline().strip() if holder.stderr else ""
        if message != f"held {clients}":
            self.release()  # raises the load generator's error, if there is one
            raise MeasureError(f"{clients} clients should be held, but: {message}")

    def release(self) -> None:
        """Let every client send once more and quit; count the answers in `answered_again`."""
        self.answered_again = int(parse_report(self._holder.communicate("\n")[0])["answered_again"])


def check_finished(count: int, report: dict[str, Any]) -> None:
    """Fail unless all sessions finished in time: figures are divided by their number."""
    if report["finished"] < count:
        raise MeasureError(f"only {report['finished']} of {count} sessions finished in time")


def parse_report(text: str) -> dict[str, Any]:
    """Return the load generator's report; raise MeasureError if a session failed."""
    try:
        report: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise MeasureError(f"the load generator exited without a report: {text}") from error
    if errors := report.get("errors", 0):
        raise MeasureError(
            f"{errors} of {report['opened']} sessions failed; first error: {report['first_error']}"
        )
    return report
