"""Jobs: commands that run a program or a function, while the session continues.

Used in handlers, and imported by the master only where the configuration has a job. The handler
forks a job supervisor, which forks the job. Meanwhile the handler watches its client and the
shutdown pipe; whatever ends the session ends the job.
"""

from __future__ import annotations

import _socket
import os
import time

from tetrad.handler import job_supervisor
from tetrad.handler.wait import SessionEnded
from tetrad.ipc import log_protocol
from tetrad.system import fork
from tetrad.system.json_lite import members
from tetrad.system.lean_signal import signal
from tetrad.system.text import escape_unprintable, with_limit_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from tetrad.extension import Context
    from tetrad.ipc.runtime_config import JobConfig

    class JobSession(Protocol):
        """What a job uses of a session (`tetrad.handler.session.Session`)."""

        def begin_job(self) -> None:
            """Note that a job begins."""

        def count_commands(self, count: int) -> None:
            """Count commands that were answered."""

        def log_commands(self, level: str, event: str, *fields: str) -> None:
            """Log commands, each given by JSON members."""

        def wait_for_fds(self, fds: tuple[int, ...], deadline: float) -> list[int]:
            """Wait until one of `fds` is readable; return those that are. Raises SessionEnded."""


KILL_SECONDS = 0.5
"""How long the end of killed processes is waited for: one in disk I/O ends later."""

STDERR_BYTES = 400
"""How much of a job's standard error is kept."""

MAX_LOG_TEXT = 400
"""Characters of the log fields `stderr` and `error`, so that the event fits one write."""

_READ_BYTES = 65536
_MESSAGE_BYTES = 4096
_SIGNAL_NAMES = {
    getattr(signal, name): name
    for name in dir(signal)
    if name.startswith("SIG") and "_" not in name
}

_LIMITS = {"SIGXCPU": " (cpu is reached)", "SIGXFSZ": " (file_size is reached)"}
"""What the log adds to signals that resource limits send."""


class JobResult:
    """The result of a job. Without an `error` it succeeded; `status` is set if it exited."""

    __slots__ = ("answer", "error", "is_cut", "status", "stderr")

    def __init__(self) -> None:
        self.answer = bytearray()
        self.stderr = bytearray()
        self.status: int | None = None
        self.error: str | None = None
        self.is_cut = False

    def set_wait_status(self, wait_status: int) -> None:
        """Record how the job ended, unless an error is recorded already."""
        if self.error is not None:
            return
        code = os.waitstatus_to_exitcode(wait_status)
        if code < 0:
            name = _SIGNAL_NAMES.get(-code, f"signal {-code}")
            self.error = f"killed by {name}{_LIMITS.get(name, '')}"
        else:
            self.status = code
            self.error = f"exit status {code}" if code else None


class RunningJob:
    """A job that runs: its supervisor, and the pipes from its standard output and error."""

    def __init__(self, config: JobConfig, context: Context, result: JobResult) -> None:
        """Start the job. Raises OSError."""
        self._max_output = config["max_output"]
        self._result = result
        self._socket, other_end = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._stdout, self._stderr = -1, -1
        fds = [other_end.detach()]  # those of the supervisor
        try:
            fds.append(os.open(os.devnull, os.O_RDONLY))
            self._stdout, stdout = os.pipe()
            fds.append(stdout)
            self._stderr, stderr = os.pipe()
            fds.append(stderr)
            self._pid = fork.fork_child(lambda: job_supervisor.supervise(fds, config, context))
        except OSError:
            self._close()
            raise
        finally:
            for fd in fds:
                os.close(fd)
        os.set_blocking(self._stdout, False)
        os.set_blocking(self._stderr, False)
        self._open_fds = {self._socket.fileno(), self._stdout, self._stderr}

    def wait(self, session: JobSession, deadline: float) -> None:
        """Read the job's output until it ends, is cut or times out.

        Raises SessionEnded or OSError if the session ends first.
        """
        supervisor = self._socket.fileno()
        while supervisor in self._open_fds:
            for fd in session.wait_for_fds(tuple(self._open_fds), deadline):
                self._read(fd)
            if self._result.is_cut:
                return
            if time.monotonic() >= deadline and supervisor in self._open_fds:
                self._result.error = "timed out"
                return
        # All writers are gone, but a pipe may hold more than one read has returned.
        for fd in tuple(self._open_fds):
            while not self._result.is_cut and self._read(fd):
                pass
        if self._result.status is None and self._result.error is None:
            self._result.error = "the job supervisor was killed"

    def kill(self) -> None:
        """Kill the job and everything that it started, and wait for their end."""
        self._close()
        if fork.wait_for_exit(self._pid, KILL_SECONDS):
            # A supervisor leaves processes only if it was killed.
            job_supervisor.kill_children(KILL_SECONDS)

    def _close(self) -> None:
        self._socket.close()
        for fd in (self._stdout, self._stderr):
            if fd >= 0:
                os.close(fd)

    def _read(self, fd: int) -> bool:
        """Read once from a descriptor; False if nothing was there."""
        try:
            if fd == self._socket.fileno():
                data = self._socket.recv(_MESSAGE_BYTES)
                self._handle_message(data)
            else:
                data = os.read(fd, _READ_BYTES)
                self._append_output(fd, data)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            self._open_fds.discard(fd)
        return bool(data)

    def _append_output(self, fd: int, data: bytes) -> None:
        result = self._result
        if fd == self._stderr:
            result.stderr += data[: STDERR_BYTES - len(result.stderr)]
            return
        result.answer += data
        if len(result.answer) > self._max_output:
            del result.answer[self._max_output :]
            result.is_cut = True

    def _handle_message(self, data: bytes) -> None:
        """Record a message of the supervisor; a wait status does not replace an error."""
        kind, text = data[:1], data[1:].decode("utf-8", "replace")
        result = self._result
        if kind == job_supervisor.ENDED:
            result.set_wait_status(int(text))
        elif kind == job_supervisor.NOT_STARTED:
            result.error = f"cannot start the job: {text}"
        elif kind == job_supervisor.FAILED:
            result.error = text


def run_job(config: JobConfig, context: Context, session: JobSession) -> bytes | None:
    """Run a job to its end and log the command; return the answer, None for no answer.

    Raises SessionEnded or OSError if the session ends before the job.
    """
    started = time.monotonic()
    result = JobResult()
    session.begin_job()
    try:
        _run(config, context, session, result)
    except SessionEnded as ended:
        result.error = f"the session ended: {ended.reason}"
        raise
    except ConnectionError:
        result.error = "the client disconnected"
        raise
    finally:
        session.count_commands(1)
        _log(session, context.command, result, time.monotonic() - started)
    if result.error is None:
        return bytes(result.answer)
    return None if config["on_error"] is None else config["on_error"].encode()


def _run(config: JobConfig, context: Context, session: JobSession, result: JobResult) -> None:
    """Run a job to its end. Raises SessionEnded or OSError if the session ends first."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        job_supervisor.become_subreaper()
        job = RunningJob(config, context, result)
    except OSError as error:
        result.error = f"cannot start the job: {with_limit_hint(error)}"
        return
    try:
        job.wait(session, time.monotonic() + config["timeout"])
    finally:
        job.kill()


def _log(session: JobSession, command: str, result: JobResult, seconds: float) -> None:
    fields: dict[str, object] = {"command": command}
    if result.status is not None:
        fields["status"] = result.status
    fields |= {"duration": round(seconds, 6), "bytes": len(result.answer)}
    if result.is_cut:
        fields["cut"] = True
    if result.stderr:
        stderr = result.stderr.decode("utf-8", "backslashreplace")
        fields["stderr"] = escape_unprintable(stderr.rstrip("\n"))[:MAX_LOG_TEXT]
    if result.error is not None:
        fields["error"] = escape_unprintable(result.error)[:MAX_LOG_TEXT]
    level = "info" if result.error is None and not result.is_cut else "warning"
    session.log_commands(level, log_protocol.CLIENT_COMMAND, members(fields))
