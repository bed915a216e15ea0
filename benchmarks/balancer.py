"""What HAProxy costs in front of tetrad: `python -m benchmarks.balancer`, from the project's root.

HAProxy with one thread passes clients to a tetrad with the PROXY protocol. Measured are its CPU
time for a session and its memory for a held connection, from which CAPACITY.md computes the number
of balancers.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import processes
from benchmarks.capacity import cpu_us, parser_with_tetrad
from benchmarks.load import Load
from benchmarks.processes import MeasureError, anonymous_kib, build
from benchmarks.samples import SETTLE_SECONDS
from benchmarks.servers import Handlers, Server, configure_tetrad, running

if TYPE_CHECKING:
    import argparse
    import subprocess
    from collections.abc import Iterator, Sequence

    from benchmarks.servers import Site

START_SECONDS = 5.0


class Scale(NamedTuple):
    """How much is measured: rounds of so many sessions, and so many held connections."""

    rounds: int
    sessions: int
    held: int


FULL = Scale(rounds=5, sessions=2_000, held=2_000)
QUICK = Scale(rounds=2, sessions=200, held=200)

_CONFIGURATION = """\
global
    nbthread 1
    maxconn 5000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen tetrad
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{backend_port} send-proxy-v2
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each figure."""
    options = _parse(arguments)
    if shutil.which("haproxy") is None:
        sys.stdout.write("haproxy is not installed: apt-get install haproxy\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="tetrad-balancer-") as folder:
        scratch = Path(folder)
        try:
            load = Load(build(Path(__file__).with_name("load.c"), scratch))
            with (
                running(_tetrad_behind_balancer(options.tetrad), scratch, scratch) as server,
                _balancing(server.port, scratch) as (port, pid),
            ):
                _measure(load, port, pid, QUICK if options.quick else FULL)
        except MeasureError as error:
            sys.stdout.write(f"{error}\n")
            return 1
    return 0


def _measure(load: Load, port: int, pid: int, scale: Scale) -> None:
    rounds = []
    for _ in range(scale.rounds):
        before = cpu_us(pid)
        load.exact_sessions_per_second(port, scale.sessions)
        rounds.append((cpu_us(pid) - before) / scale.sessions)
    empty = anonymous_kib(pid)
    with load.holding(port, scale.held) as held:
        time.sleep(SETTLE_SECONDS)
        each = (anonymous_kib(pid) - empty) / scale.held
        held.release()
    sys.stdout.write(f"HAProxy, one thread: {median(rounds):.0f} µs per session\n")
    sys.stdout.write(f"memory of HAProxy: {each:.1f} KiB per held connection\n")


def _tetrad_behind_balancer(executable: str) -> Server:
    """Return a tetrad that trusts balancers on this machine."""

    def command(site: Site) -> list[str]:
        proxy = {"trusted": ["127.0.0.0/8"]}
        file = configure_tetrad(site, Handlers(clients_each=1000), proxy=proxy)
        return [executable, "run", "-c", file]

    return Server("tetrad", executable, command, b"PROXY UNKNOWN\r\n")


@contextmanager
def _balancing(backend_port: int, scratch: Path) -> Iterator[tuple[int, int]]:
    """Run HAProxy in front of a port; yield its port and pid."""
    port = processes.free_port()
    file = scratch / "haproxy.cfg"
    file.write_text(_CONFIGURATION.format(port=port, backend_port=backend_port))
    haproxy = processes.start(["haproxy", "-db", "-f", str(file)], scratch / "haproxy.out")
    try:
        _wait_until_accepting(haproxy, port)
        yield port, haproxy.pid
    finally:
        processes.stop(haproxy)


def _wait_until_accepting(haproxy: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not processes.accepts(port):
        if haproxy.poll() is not None or time.monotonic() > deadline:
            raise MeasureError("HAProxy does not accept connections")
        time.sleep(0.01)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_with_tetrad("python -m benchmarks.balancer", __doc__)
    parser.add_argument(
        "--quick", action="store_true", help="only show that it runs; the figures mean little"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
