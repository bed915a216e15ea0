"""The fast path: the first moments of a session, in which most sessions also end.

Most clients have their command ready and disconnect with the answer. Every page of memory that a
new handler touches has to be copied for it, and that is most of the cost of a session. So this is
one function, which creates nothing that it may not need. Its reads block, but only briefly
(`tetrad.system.sockets.RECV_TIMEOUT_SECONDS`). A client that takes longer is waited for in
`tetrad.handler.idle_wait`. A client that then sends more, or anything but one command at a time,
goes to the slow path, which creates a `tetrad.handler.session`.
"""

from __future__ import annotations

from _socket import SHUT_WR
from os import getpid, read, write
from time import monotonic, monotonic_ns, time_ns

from tetrad.handler.commands import immediate, with_terminator
from tetrad.handler.progress import SessionProgress
from tetrad.ipc import exit_notices, log_protocol
from tetrad.protocol.commands import LENGTH
from tetrad.system.json_lite import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from tetrad.handler.commands import Command
    from tetrad.handler.idle_wait import IdleWait
    from tetrad.ipc.fd_passing import ClientHandoff

    SlowPath = Callable[[_socket.socket, ClientHandoff, SessionProgress, bytes], bool]
    """Serves the rest of a session and sends its exit notice (the last argument).

    Returns True if the handler can serve another client.
    """

    State = tuple[int, tuple[int | bytes, ...], int, bytes | None, bool, OSError | None]
    """A session so far: its start (ns), values for the log, bytes sent, input that was read and not
    answered, whether the last command closes, the error."""

_MAX_COMMANDS = 8
_MAX_ANSWER_BYTES = 256
"""This many answers of this length fit the buffer of any socket: a write never blocks."""

_READ_BYTES = 256
"""One of CPython's preallocated integers, and a buffer that its own allocator provides."""

_MICROSECONDS = 1_000_000
_NANOSECONDS = 1_000_000_000

_CONNECTED = f"%d info {log_protocol.CLIENT_CONNECTED} {{}}\n"
_COMMAND = f"%d info {log_protocol.CLIENT_COMMAND} {{%b}}\n"
_EVENTS = [(_CONNECTED + _COMMAND * count).encode() for count in range(_MAX_COMMANDS + 1)]
"""The log lines of a session that goes on, by the number of its commands."""

_BATCH = [f'{log_protocol.CONTEXT_MARK}{{"pid":%d,%b}}\n'.encode() + lines for lines in _EVENTS]
"""The same lines behind the context line, as one write to the event pipe."""

_FINAL_BATCH = [
    batch
    + f'%d info {log_protocol.CLIENT_DISCONNECTED} {{"reason":"%b","duration":%d.%06d,'
    '"bytes_in":%d,"bytes_out":%d,"commands":%d}\n'.encode()
    for batch in _BATCH
]
"""The write to the event pipe for a session that has ended."""


class FastPath:
    """Serves clients of one listener with answers that were prepared before the fork.

    Each answer ends with `terminator`. Jobs are not answered here. The exit notice of a session
    that ends here is written to `notices_fd`; all others are continued by `slow_path`.
    """

    __slots__ = (
        "_answers",
        "_commands",
        "_idle_wait",
        "_log",
        "_log_fd",
        "_notices_fd",
        "_slow_path",
        "_terminator",
        "_valid_from",
        "_valid_until",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - all that it uses
        self,
        commands: dict[bytes, Command],
        terminator: bytes,
        log: log_protocol.LogWriter,
        notices_fd: int,
        idle_wait: IdleWait,
        slow_path: SlowPath,
    ) -> None:
        self._commands = immediate(commands)
        self._terminator = terminator
        self._log = log
        self._log_fd = log.fd if log.level <= log_protocol.LEVELS["info"] else None
        self._notices_fd = notices_fd
        self._idle_wait = idle_wait
        self._slow_path = slow_path
        self._answers: dict[bytes, tuple[bytes, int, bytes, bool]] = {}
        self._valid_from = self._valid_until = 0

    def refresh_answers(self) -> None:
        """Prepare the answers for the current second, unless that is done already."""
        now = time_ns()
        if self._valid_from <= now < self._valid_until:
            return
        self._valid_from = now // _NANOSECONDS * _NANOSECONDS
        self._valid_until = self._valid_from + _NANOSECONDS
        for name, command in self._commands.items():
            answer = with_terminator(command.answer(), self._terminator)
            if len(answer) <= _MAX_ANSWER_BYTES:
                fields = members({"command": name.decode()}).encode()
                self._answers[name] = (answer, len(answer), fields, command.closes)
            else:
                self._answers.pop(name, None)

    def serve(self, socket: _socket.socket, client: ClientHandoff, notice: bytes) -> bool:
        """Serve a client and send its exit notice; True if the handler can serve another client.

        One long function, because each function, module and method that is used here is one more
        page to copy. The socket is left open: it is closed when the handler exits.
        """
        started = monotonic_ns()
        values: tuple[int | bytes, ...] = (time_ns(),)
        answers = self._answers
        fd = socket.fileno()
        commands = bytes_out = 0
        closes = False
        pending = error = None
        try:
            while commands < _MAX_COMMANDS:
                pending = read(fd, _READ_BYTES)
                now = time_ns()
                if pending not in answers or not self._valid_from <= now < self._valid_until:
                    break
                answer, length, fields, closes = answers[pending]
                write(fd, answer)
                pending = None
                values += (now, fields)
                bytes_out += length
                commands += 1
                if closes:
                    socket.shutdown(SHUT_WR)
                    pending = read(fd, _READ_BYTES)
                    break
        except BlockingIOError:
            pass
        except OSError as failure:
            error = failure
        if pending != b"":
            state = started, values, bytes_out, pending, closes, error
            return self._continue(socket, client, state, notice)
        if self._log_fd is not None:
            duration = (monotonic_ns() - started) // 1000
            reason = b"quit" if closes else b"eof"
            end = (time_ns(), reason, duration // _MICROSECONDS, duration % _MICROSECONDS)
            counts = (LENGTH * commands, bytes_out, commands)
            values = (getpid(), client[3]) + values + end + counts  # noqa: RUF005 - no list
            batch = _FINAL_BATCH[commands] % values
            try:
                write(self._log_fd, batch)
            except OSError:
                notice = self._retry_log_write(batch, commands + 2, notice)
        try:
            write(self._notices_fd, notice)
        except OSError:
            pass  # the master is gone
        return True

    def _retry_log_write(self, batch: bytes, count: int, notice: bytes) -> bytes:
        """Retry a log write that got EAGAIN; return the notice with the number of lost events."""
        self._log.write_batch(batch, count)
        return exit_notices.with_lost_count(notice, self._log.take_lost())

    def _continue(
        self, socket: _socket.socket, client: ClientHandoff, state: State, notice: bytes
    ) -> bool:
        """Pass a session to the slow path; an idle client is first waited for."""
        started, values, bytes_out, pending, closes, error = state
        commands = len(values) // 2
        is_idle = pending is None and error is None and not closes
        last_command = monotonic_ns()
        self._idle_wait.set_up_process(client[0].encode())
        if is_idle:
            if self._log_fd is not None:
                batch = _BATCH[commands] % ((getpid(), client[3]) + values)  # noqa: RUF005 - no list
                try:
                    write(self._log_fd, batch)
                except OSError:
                    self._log.write_batch(batch, 1 + commands)
            self._idle_wait.wait(socket.fileno(), started, has_asked=commands > 0)
        progress = SessionProgress(started / _NANOSECONDS)
        if commands:
            progress.commands = commands
            progress.last_command = last_command / _NANOSECONDS
        if not is_idle and self._log_fd is not None:
            progress.log_lines = _EVENTS[commands] % values
        progress.pending = pending or b""
        progress.bytes_in = LENGTH * commands + len(progress.pending)
        progress.bytes_out = bytes_out
        progress.is_closing = closes
        progress.error = error
        return self._slow_path(socket, client, progress, notice)


class SlowPathOnly:
    """Takes the place of `FastPath` at a TLS listener: every session takes the slow path."""

    __slots__ = ("_idle_wait", "_slow_path")

    def __init__(self, idle_wait: IdleWait, slow_path: SlowPath) -> None:
        self._idle_wait = idle_wait
        self._slow_path = slow_path

    def refresh_answers(self) -> None:
        """Prepare nothing."""

    def serve(self, socket: _socket.socket, client: ClientHandoff, notice: bytes) -> bool:
        """Serve a client on the slow path; True if the handler can serve another client."""
        self._idle_wait.set_up_process(client[0].encode())
        return self._slow_path(socket, client, SessionProgress(monotonic()), notice)
