"""A command that takes its time: a keeper is forked for it, and the session goes on meanwhile.

Runs in a handler; a master has it only where there is such a command. While the program
runs the handler hears its client and its master; whatever ends the session ends the program.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from tetrad.handler import job_supervisor
from tetrad.handler.wait import SessionEnded
from tetrad.ipc import log_protocol
from tetrad.system import fork
from tetrad.system.json_lite import members
from tetrad.system.lean_signal import signal
from tetrad.system.text import escape_unprintable, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from tetrad.extension import Context
    from tetrad.ipc.runtime_config import JobConfig

    class JobSession(Protocol):
        """What a job uses of a session (`tetrad.handler.session.Session`)."""

        def count_commands(self, count: int) -> None:
            """Count commands that were answered."""

        def log_json(self, level: str, event: str, fields: str) -> None:
            """Log an event; `fields` are JSON members."""

        def wait_for_fds(self, fds: tuple[int, ...], deadline: float) -> list[int]:
            """Wait until one of `fds` is readable; return those that are. Raises SessionEnded."""


KILL_SECONDS = 0.5
"""How long the end of what was killed is waited for: one that waits for a disk takes longer."""

STDERR_BYTES = 400
"""How much of what a program complains of is kept."""

LONGEST_TEXT = 400
"""How many characters of that, and of an error, the log gets: a line of it is one short write."""

_READ_BYTES = 65536
_SIGNALS = {
    getattr(signal, name): name
    for name in dir(signal)
    if name.startswith("SIG") and "_" not in name
}
_LONGEST_MESSAGE = 4096


class JobResult:
    """What came of it. Without an `error` it succeeded; a `status` is there if it exited."""

    __slots__ = ("answer", "error", "is_cut", "status", "stderr")

    def __init__(self) -> None:
        self.answer = bytearray()
        self.stderr = bytearray()
        self.status: int | None = None
        self.error: str | None = None
        self.is_cut = False

    def take_status(self, wait_status: int) -> None:
        """Take note of how the program has ended, unless its failure is known already."""
        if self.error is not None:
            return
        code = os.waitstatus_to_exitcode(wait_status)
        if code < 0:
            self.error = f"killed by {_SIGNALS.get(-code, f'signal {-code}')}"
        else:
            self.status = code
            self.error = f"exit status {code}" if code else None


class RunningJob:
    """A program or a function at work, its keeper, and what it has said so far."""

    def __init__(self, config: JobConfig, context: Context, outcome: JobResult) -> None:
        """Start it. Raises OSError."""
        self._most = config["max_output"]
        self._outcome = outcome
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._control = ours
        self._output, self._errors = -1, -1
        made = [theirs.detach()]
        try:
            made.append(os.open(os.devnull, os.O_RDONLY))
            self._output, output = os.pipe()
            made.append(output)
            self._errors, errors = os.pipe()
            made.append(errors)
            places = (made[1], output, errors, made[0])
            self._pid = fork.fork_child(lambda: job_supervisor.keep(places, config, context))
        except OSError:
            self._close()
            raise
        finally:
            for fd in made:
                os.close(fd)
        os.set_blocking(self._output, False)
        os.set_blocking(self._errors, False)
        self._heard = {ours.fileno(), self._output, self._errors}

    def follow(self, session: JobSession, deadline: float) -> None:
        """Listen until it has ended, or is to be ended. Raises what ends the session."""
        control = self._control.fileno()
        while control in self._heard:
            for fd in session.wait_for_fds(tuple(self._heard), deadline):
                self._hear(fd)
            if self._outcome.is_cut:
                return
            if time.monotonic() >= deadline and control in self._heard:
                self._outcome.error = "timed out"
                return
        # Nobody writes any more, but there may be more to read than the last looks have shown.
        for fd in tuple(self._heard):
            while not self._outcome.is_cut and self._hear(fd):
                pass
        if self._outcome.status is None and self._outcome.error is None:
            self._outcome.error = "its keeper was killed"

    def end(self) -> None:
        """Kill what is left of it, and wait for that."""
        self._close()
        pidfd = os.pidfd_open(self._pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        is_over = bool(poll.poll(KILL_SECONDS * 1000))
        os.close(pidfd)
        if is_over:
            # All that there can be is what a keeper that was killed has left.
            job_supervisor.end_children(KILL_SECONDS)

    def _close(self) -> None:
        self._control.close()
        for fd in (self._output, self._errors):
            if fd >= 0:
                os.close(fd)

    def _hear(self, fd: int) -> bool:
        """Take what is there; False if that is nothing."""
        try:
            if fd == self._control.fileno():
                data = self._control.recv(_LONGEST_MESSAGE)
                self._take_message(data)
            else:
                data = os.read(fd, _READ_BYTES)
                self._take_output(fd, data)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            self._heard.discard(fd)
        return bool(data)

    def _take_output(self, fd: int, data: bytes) -> None:
        outcome = self._outcome
        if fd == self._errors:
            outcome.stderr += data[: STDERR_BYTES - len(outcome.stderr)]
            return
        outcome.answer += data
        if len(outcome.answer) > self._most:
            del outcome.answer[self._most :]
            outcome.is_cut = True

    def _take_message(self, data: bytes) -> None:
        """Take note of what the keeper says; the first complaint is what counts."""
        kind, text = data[:1], data[1:].decode("utf-8", "replace")
        outcome = self._outcome
        if kind == job_supervisor.ENDED:
            outcome.take_status(int(text))
        elif kind == job_supervisor.NOT_STARTED:
            outcome.error = f"it cannot be started: {text}"
        elif kind == job_supervisor.RAISED:
            outcome.error = text


def perform(config: JobConfig, context: Context, session: JobSession) -> bytes | None:
    """Run it, log the command, and return what is to be answered; None for nothing.

    Raises what ends the session, if it ends meanwhile.
    """
    began = time.monotonic()
    outcome = JobResult()
    try:
        _run(config, context, session, outcome)
    except SessionEnded as ended:
        outcome.error = f"the session has ended: {ended.reason}"
        raise
    except ConnectionError:
        outcome.error = "the client has left"
        raise
    finally:
        session.count_commands(1)
        _tell(session, context.command, outcome, time.monotonic() - began)
    if outcome.error is None:
        return bytes(outcome.answer)
    return None if config["on_error"] is None else config["on_error"].encode()


def _run(config: JobConfig, context: Context, session: JobSession, outcome: JobResult) -> None:
    """Run it to its end; only what ends the session is raised."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    job_supervisor.adopt_orphans()
    try:
        running = RunningJob(config, context, outcome)
    except OSError as error:
        outcome.error = f"it cannot be started: {reason_of(error)}"
        return
    try:
        running.follow(session, time.monotonic() + config["timeout"])
    finally:
        running.end()


def _tell(session: JobSession, command: str, outcome: JobResult, seconds: float) -> None:
    fields: dict[str, object] = {"command": command}
    if outcome.status is not None:
        fields["status"] = outcome.status
    fields |= {"duration": round(seconds, 6), "bytes": len(outcome.answer)}
    if outcome.is_cut:
        fields["cut"] = True
    if outcome.stderr:
        stderr = outcome.stderr.decode("utf-8", "backslashreplace")
        fields["stderr"] = escape_unprintable(stderr.rstrip("\n"))[:LONGEST_TEXT]
    if outcome.error is not None:
        fields["error"] = escape_unprintable(outcome.error)[:LONGEST_TEXT]
    level = "info" if outcome.error is None and not outcome.is_cut else "warning"
    session.log_json(level, log_protocol.CLIENT_COMMAND, members(fields))
