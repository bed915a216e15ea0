"""Programs that report how they end, although their starter ignores SIGCHLD and cannot wait.

A child is forked that executes the program in a child of its own and waits for it. It keeps the
last line that the program writes to standard error. It kills the program when nobody reads its
answer any more: the starter has closed the pipe, or is gone.
"""

from __future__ import annotations

import os
import select

from tetrad.system import fork
from tetrad.system.lean_signal import signal
from tetrad.system.proctitle import ProcessTitle
from tetrad.system.text import escape_unprintable, with_limit_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT_MARK = b"\n\x1e"
"""Begins the report of the program's end, behind the program's own answer."""

_ANSWER, _STDERR = 3, 4
"""Descriptors of the supervisor: the pipe for the answer, and the program's standard error."""

_STDERR_BYTES = 4096
_EXITS_BYTES = 64
_MAX_LINE_CHARS = 400


def run_supervised(command: list[str], keep: Sequence[int], highest_fd: int) -> None:
    """Fork a supervisor, which executes a program of tetrad's. Raises OSError if the fork fails.

    The program has the descriptors `keep` at 3 and above; the first one is the pipe for its answer.
    The supervisor appends REPORT_MARK and a text such as `exited with status 1: ImportError: x`.
    """
    with fork.signals_blocked:
        fork.fork_child(lambda: _supervise(command, keep, highest_fd))


def _supervise(command: list[str], keep: Sequence[int], highest_fd: int) -> None:
    fork.ignore_master_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    ProcessTitle().show(b"helper")
    stderr, program_stderr = os.pipe()
    highest_fd = max(highest_fd, stderr, program_stderr)
    try:
        pid = fork.run_program(command, keep, highest_fd, program_stderr)
    except OSError as error:
        os.write(keep[0], REPORT_MARK + f"did not start: fork: {with_limit_hint(error)}".encode())
        return
    for number, fd in ((_ANSWER, keep[0]), (_STDERR, stderr)):
        os.dup2(fd, number)
    os.closerange(_STDERR + 1, highest_fd + 1)
    report = _wait(pid)
    if report is None:
        os.kill(pid, signal.SIGKILL)
    else:
        os.write(_ANSWER, REPORT_MARK + report.encode("utf-8", "backslashreplace"))


def _wait(pid: int) -> str | None:
    """Wait for the end of the program, and return how it ended.

    Returns None if nobody waits for its answer any more.
    """
    exits = fork.open_exit_pipe()
    poll = select.poll()
    poll.register(exits, select.POLLIN)
    poll.register(_STDERR, select.POLLIN)
    poll.register(_ANSWER, 0)  # an error: no reader is left
    tail = b""
    while True:
        ready = dict(poll.poll())
        if _ANSWER in ready:
            return None
        if _STDERR in ready:
            data = os.read(_STDERR, _STDERR_BYTES)
            tail = (tail + data)[-_STDERR_BYTES:]
            if not data:
                poll.unregister(_STDERR)
        elif exits in ready:
            os.read(exits, _EXITS_BYTES)
            # There is a signal also when the program is stopped or continued.
            exited, status = os.waitpid(pid, os.WNOHANG)
            if exited:
                return _report(os.waitstatus_to_exitcode(status), tail)


def _report(status: int, stderr: bytes) -> str:
    """Return how a program ended, with the last line of its standard error."""
    if status < 0:
        text = f"was killed by signal {-status} ({signal.strsignal(-status)})"
    else:
        text = f"exited with status {status}"
    lines = stderr.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{text}: {escape_unprintable(last)[:_MAX_LINE_CHARS]}" if last else text
