"""What a start inherits from its caller: signals, descriptors, limits, a working directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from tests.support.jobs import ask
from tests.support.processes import UNDER_COVERAGE, descriptors_of, run, until
from tests.support.written_logs import line, write

if TYPE_CHECKING:
    import pathlib

    from tests.support.fixtures import MakeDaemon

PIPE_BYTES = 4096
"""The size of the smallest pipe."""

BLOCKED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGURG, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A caller that has blocked all signals, and ignores some."""


def test_signals_that_the_caller_blocks_or_ignores(prepared: MakeDaemon) -> None:
    """The daemon gets them, and so do the programs of commands."""
    masks = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    served = prepared(commands={"mask": {"run": masks}})
    python = served.command
    served.command = [sys.executable, "-c", BLOCKED, *python]
    served.start()
    served.command = python
    denied = served.served(source="127.0.0.9")
    served.configure(access={"deny": ["127.0.0.9"]})
    assert served.tetrad("reload").status == 0
    assert denied.read_all() == b""  # by SIGURG
    masked = [int(line.split()[1], 16) for line in ask(served, b"maskquit")[:-4].splitlines()]
    assert masked == [0, 0]
    assert served.tetrad("stop").status == 0


def test_output_that_is_not_blocking_is_complete(
    prepared: MakeDaemon, tmp_path: pathlib.Path
) -> None:
    """The caller's terminal or pipe may be so, and its reader be slow."""
    written = prepared()
    events = 2000
    write(written.log_file, *(line(number) for number in range(events)))
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(writes, False)
    command = [*written.command, "logs", "-n", f"{events}", "-c", written.file]
    errors = tmp_path / "errors"
    with (
        open(errors, "wb") as file,
        subprocess.Popen(command, env=written.environment, stdout=writes, stderr=file) as logs,
    ):
        os.close(writes)
        # What does not wait has ended, and what waits has filled the pipe.
        until(lambda: logs.poll() is not None or _is_full(reads), "a full pipe")
        with open(reads, "rb") as output:
            assert output.read().count(b"\n") == events
    assert (logs.returncode, errors.read_text()) == (0, "")


def _is_full(pipe: int) -> bool:
    pending = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(pending, sys.byteorder) > PIPE_BYTES - 2 * len(line(0))


@pytest.mark.parametrize("command", ["start", "run", "restart"])
def test_a_file_that_cannot_be_read_again_is_refused(prepared: MakeDaemon, command: str) -> None:
    """A daemon that a shell starts with <(…) or from a pipe could not be reloaded, or stopped."""
    asked = prepared()
    with open(asked.file, encoding="utf-8") as file:
        text = file.read().replace("tetrad.pid", asked.pidfile).replace("tetrad.log", "/dev/null")
    text = text.replace("control.sock", os.path.join(asked.folder, "control.sock"))
    reads, writes = os.pipe()
    os.write(writes, text.encode())
    os.close(writes)
    words = [*asked.command, command, "-c", f"/dev/fd/{reads}"]
    try:
        ran = run(words, asked.environment, pass_fds=[reads])
    finally:
        os.close(reads)
    reason = f"/dev/fd/{reads}: not a file that a reload can read again: name a regular file"
    assert (ran.status, ran.err.count(reason)) == (1, 1), ran


def test_a_limit_of_cpu_time_is_named(prepared: MakeDaemon) -> None:
    """It would end the daemon at some moment, without a line in the log."""
    asked = prepared()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (1000, 2000))

    reason = (
        "the limit of CPU time (ulimit -t) is 1000 s, after which the kernel kills the daemon: "
        "remove it\n"
    )
    ran = asked.tetrad("check", preexec_fn=limit)
    assert (ran.status, ran.err) == (78, f"tetrad: {reason}")
    ran = asked.tetrad("start", preexec_fn=limit)
    assert (ran.status, ran.err) == (0, f"tetrad: warning: {reason}")
    asked.adopt(ran.out)


NO_MEMORY = """
from tetrad import cli

def fail(options):
    raise MemoryError

cli._function = lambda command: fail
cli.main(["status"])
"""


def test_a_limit_of_memory_is_named(prepared: MakeDaemon) -> None:
    """It is no defect of the command."""
    ran = run([sys.executable, "-c", NO_MEMORY], prepared().environment)
    assert ran.status == 1
    assert ran.err.startswith("tetrad: not enough memory: the machine or the control group")


def test_a_removed_working_directory(prepared: MakeDaemon, tmp_path: pathlib.Path) -> None:
    """Absolute paths are enough; a relative one is reported as missing."""
    served = prepared()
    gone = tmp_path / "gone"
    script = f'mkdir {gone}; cd {gone}; rmdir {gone}; exec "$@"'
    served.command = ["sh", "-c", script, "sh", *served.command]
    served.start()
    assert served.tetrad("reload").status == 0
    ran = run([*served.command, "check", "-c", "t.yaml"], served.environment)
    assert (ran.status, ran.err) == (78, "tetrad: t.yaml: no such file or directory\n")
    assert served.tetrad("stop").status == 0


def test_a_release_that_is_replaced_by_its_symbolic_link(prepared: MakeDaemon) -> None:
    """A reload reads the file where the link leads now; the daemon is known by the link."""
    served = prepared()
    os.mkdir(first := os.path.join(served.folder, "first"))
    os.mkdir(second := os.path.join(served.folder, "second"))
    with open(served.file, encoding="utf-8") as file:
        text = file.read()
    for name in ("tetrad.pid", "control.sock", "tetrad.log"):
        text = text.replace(name, os.path.join(served.folder, name))
    for folder, more in ((first, ""), (second, "limits: {clients: 77}\n")):
        with open(os.path.join(folder, "tetrad.yaml"), "w", encoding="utf-8") as file:
            file.write(text + more)
    link = os.path.join(served.folder, "current")
    os.symlink(first, link)
    served.file = os.path.join(link, "tetrad.yaml")
    served.start()
    os.unlink(link)
    os.symlink(second, link)
    os.unlink(os.path.join(first, "tetrad.yaml"))
    ran = served.tetrad("reload")
    assert (ran.status, "limits.clients: 1000 -> 77" in ran.out) == (0, True), ran
    assert served.tetrad("stop").status == 0


@pytest.mark.skipif(UNDER_COVERAGE, reason="coverage opens files")
def test_no_descriptor_of_the_caller_is_kept(prepared: MakeDaemon) -> None:
    """Files and sockets would stay open as long as the daemon runs."""
    served = prepared(handlers={"spare": 1})
    with contextlib.ExitStack() as stack:
        secret = os.path.join(served.folder, "secret")
        with open(secret, "wb"):
            pass
        fds = [os.open(secret, os.O_RDONLY) for _ in range(30)]
        for fd in fds:
            stack.callback(os.close, fd)
        ran = served.tetrad("start", pass_fds=fds)
    assert ran.status == 0, ran.err
    served.adopt(ran.out)
    until(lambda: len(served.handlers) == 1, "a spare handler")
    opened = [path for pid in served.processes for path in descriptors_of(pid).values()]
    assert secret not in opened
