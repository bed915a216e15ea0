"""Where the CPU time of sessions goes: `python -m benchmarks.profile`, from the project's root.

`perf` samples the whole machine while sessions run. Each sample is assigned to a kernel activity or
to the program's own code. With `--held` other clients are held meanwhile. It needs root and
linux-perf.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.capacity import parser_with_tetrad
from benchmarks.load import AT_ONCE, Load, check_finished, parse_report
from benchmarks.processes import MeasureError, build, run
from benchmarks.samples import held_clients
from benchmarks.servers import Handlers, running, tetrad

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.servers import Instance

SESSIONS = 3_000
WARM_UP = 500
SECONDS = 60
HERTZ = 4_000
ROWS = 12

KINDS = {
    "kdamond_fn": "scanning which memory is used",
    "exit_mmap": "freeing memory",
    "dup_mmap": "copying page tables",
    "asm_exc_page_fault": "page faults",
    "copy_process": "rest of fork",
    "kernel_clone": "rest of fork",
    "ret_from_fork": "rest of fork",
    "do_exit": "rest of exit",
    "__schedule": "context switches",
    "softirq": "network",
    "tcp_": "network",
    "inet_": "network",
    "sock_": "network",
    "pipe_write": "pipes",
    "pipe_read": "pipes",
    "entry_SYSCALL": "other system calls",
    "do_idle": "idle",
}
"""A function on a sample's stack, and the activity; the first match counts."""


ROLES = {
    "tetrad": "handlers",
    "load": "load generator",
    "kdamond": "kernel's DAMON",
    "swapper": "processors",
}
"""A program's name up to a dot, and its role."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile, and print the largest shares."""
    parser = parser_with_tetrad("python -m benchmarks.profile", __doc__)
    parser.add_argument("--held", type=int, default=0, metavar="N", help="hold N clients meanwhile")
    options = parser.parse_args(arguments)
    if shutil.which("perf") is None:
        sys.stdout.write("perf is not installed: apt-get install linux-perf\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="tetrad-profile-") as folder:
        scratch = Path(folder)
        try:
            load = Load(build(Path(__file__).with_name("load.c"), scratch))
            with (
                running(tetrad(options.tetrad, Handlers()), scratch, scratch) as server,
                held_clients(load, server, options.held) if options.held else nullcontext(),
            ):
                found = _profile(server, load, scratch)
        except MeasureError as error:
            sys.stdout.write(f"{error}\n")
            return 1
    for (role, kind), count in found.most_common(ROWS):
        us = count / HERTZ / SESSIONS * 1e6
        sys.stdout.write(
            f"{count / found.total():6.1%}  {us:4.0f} us per session  {role}: {kind}\n"
        )
    return 0


def _profile(server: Instance, load: Load, scratch: Path) -> Counter[tuple[str, str]]:
    """Return the number of samples by role and activity; samples of other programs are left out."""
    load.sessions_per_second(server.port, WARM_UP, SECONDS)
    data = str(scratch / "perf.data")
    record = ["perf", "record", "-q", "-a", "-g", "-e", "cpu-clock", "-F", str(HERTZ), "-o", data]
    sessions = ["sessions", f"--port={server.port}", f"--count={SESSIONS}", f"--at-once={AT_ONCE}"]
    check_finished(
        SESSIONS, parse_report(run([*record, "--", str(load.program), *sessions], SECONDS))
    )
    roles = {server.leader.pid: "master", server.child_titled("tetrad: logger"): "logger"}
    script = run(["perf", "script", "-i", data, "-F", "comm,pid,ip,sym"], SECONDS)
    return Counter(_samples(script.splitlines(), roles))


def _samples(lines: Iterable[str], roles: dict[int, str]) -> Iterator[tuple[str, str]]:
    """Yield the role and activity of each sample: a header line, then the stack."""
    role, stack = "", ""
    for line in lines:
        if not line.strip():
            if role:
                yield role, _kind(stack)
            role, stack = "", ""
        elif not line[0].isspace():
            comm, pid = line.rsplit(maxsplit=1)
            role = roles.get(int(pid)) or ROLES.get(comm.split(".")[0], "")
        else:
            stack += line


def _kind(stack: str) -> str:
    matching = (kind for function, kind in KINDS.items() if function in stack)
    return next(matching, "its own code")


if __name__ == "__main__":
    sys.exit(main())
