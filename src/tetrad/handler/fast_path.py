"""The first moments of a session, in which most of them end.

Most clients have their question ready and leave with the answer. Every page of memory that a fresh
handler touches has to be copied for it, and that is most of what a session costs: so this is one
function, which makes nothing that it may not need, and whose reads block, but only for a moment
(`tetrad.system.sockets.READ_SECONDS`). A client that makes us wait longer has a
`tetrad.handler.idle_wait`; one that
then goes on, or says anything but one command at a time, a `tetrad.handler.session`.
"""

from __future__ import annotations

from _socket import SHUT_WR
from os import getpid, read, write
from time import monotonic, monotonic_ns, time_ns

from tetrad.handler.commands import prompt, terminated
from tetrad.handler.progress import SessionProgress
from tetrad.ipc import exit_notices, log_protocol
from tetrad.protocol.commands import LENGTH
from tetrad.system.json_lite import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from tetrad.handler.commands import Command
    from tetrad.handler.idle_wait import IdleWait
    from tetrad.ipc.fd_passing import ClientHandoff

    SoFar = tuple[int, tuple[int | bytes, ...], int, bytes | None, bool, OSError | None]
    """When a session began, what is to be logged of it, how many bytes were sent, what was read and
    is not answered, whether the last command closes, and what went wrong."""

_MOST_COMMANDS = 8
_LONGEST_ANSWER = 256
"""So many of them, of that length, fit the buffer of any socket: a write never blocks."""

_READ_BYTES = 256
"""A small number, and small enough to be read into memory of the interpreter's own."""

_MICROSECONDS = 1_000_000
_NANOSECONDS = 1_000_000_000

_CONNECTED = f"%d info {log_protocol.CLIENT_CONNECTED} {{}}\n"
_COMMAND = f"%d info {log_protocol.CLIENT_COMMAND} {{%b}}\n"
_TOLD = [(_CONNECTED + _COMMAND * count).encode() for count in range(_MOST_COMMANDS + 1)]
"""What the log is told of a session so far, by the number of its commands."""

_SPOKEN = [f'{log_protocol.CONTEXT_MARK}{{"pid":%d,%b}}\n'.encode() + told for told in _TOLD]
"""The same, and who speaks."""

_WHOLE = [
    spoken
    + f'%d info {log_protocol.CLIENT_DISCONNECTED} {{"reason":"%b","duration":%d.%06d,'
    '"bytes_in":%d,"bytes_out":%d,"commands":%d}\n'.encode()
    for spoken in _SPOKEN
]
"""What it is told of one that is over."""


class FastPath:
    """Serves clients of commands, whose answers are made before they are forked for.

    Each answer ends with the `terminator`; commands that take their time are not for this. Who
    takes longer has a `stay`; `master` is where the end of the others is noticed.
    """

    __slots__ = (
        "_answers",
        "_commands",
        "_go_on",
        "_idle_wait",
        "_log",
        "_log_fd",
        "_master",
        "_since",
        "_terminator",
        "_until",
    )

    def __init__(
        self,
        commands: dict[bytes, Command],
        terminator: bytes,
        log: log_protocol.LogWriter,
        master: int,
        idle_wait: IdleWait,
    ) -> None:
        self._commands = prompt(commands)
        self._terminator = terminator
        self._log = log
        self._log_fd = log.fd if log.level <= log_protocol.LEVELS["info"] else None
        self._master = master
        self._idle_wait = idle_wait
        self._go_on = idle_wait.go_on
        self._answers: dict[bytes, tuple[bytes, int, bytes, bool]] = {}
        self._since = self._until = 0

    def refresh(self) -> None:
        """Have answers that hold for the second that we are in."""
        now = time_ns()
        if self._since <= now < self._until:
            return
        self._since = now // _NANOSECONDS * _NANOSECONDS
        self._until = self._since + _NANOSECONDS
        for name, command in self._commands.items():
            answer = terminated(command.answer(), self._terminator)
            if len(answer) <= _LONGEST_ANSWER:
                named = members({"command": name.decode()}).encode()
                self._answers[name] = (answer, len(answer), named, command.closes)
            else:
                self._answers.pop(name, None)

    def serve(self, socket: _socket.socket, client: ClientHandoff, notice: bytes) -> bool:
        """Serve a client, and send the master a notice of its end; True if we can serve another.

        All in one piece, for each function, module and method that is used here is one more page.
        The socket is left open: a handler's own end closes it, too.
        """
        since = monotonic_ns()
        told: tuple[int | bytes, ...] = (time_ns(),)
        answers = self._answers
        fd = socket.fileno()
        commands = bytes_out = 0
        closes = False
        pending = error = None
        try:
            while commands < _MOST_COMMANDS:
                pending = read(fd, _READ_BYTES)
                now = time_ns()
                if pending not in answers or not self._since <= now < self._until:
                    break
                answer, length, named, closes = answers[pending]
                write(fd, answer)
                pending = None
                told += (now, named)
                bytes_out += length
                commands += 1
                if closes:
                    socket.shutdown(SHUT_WR)
                    pending = read(fd, _READ_BYTES)
                    break
        except BlockingIOError:
            pass
        except OSError as failed:
            error = failed
        if pending != b"":
            so_far = since, told, bytes_out, pending, closes, error
            return self._keep(socket, client, so_far, notice)
        if self._log_fd is not None:
            took = (monotonic_ns() - since) // 1000
            reason = b"quit" if closes else b"eof"
            ended = (time_ns(), reason, took // _MICROSECONDS, took % _MICROSECONDS)
            counts = (LENGTH * commands, bytes_out, commands)
            fields = (getpid(), client[3]) + told + ended + counts  # noqa: RUF005 - no list
            whole = _WHOLE[commands] % fields
            try:
                write(self._log_fd, whole)
            except OSError:
                notice = self._tell_again(whole, commands + 2, notice)
        try:
            write(self._master, notice)
        except OSError:
            pass  # no master, no need
        return True

    def _tell_again(self, whole: bytes, count: int, notice: bytes) -> bytes:
        """Tell what found no room at once; return the notice with what was lost of it."""
        self._log.write_batch(whole, count)
        return exit_notices.with_lost_count(notice, self._log.take_lost())

    def _keep(
        self, socket: _socket.socket, client: ClientHandoff, so_far: SoFar, notice: bytes
    ) -> bool:
        """Have a client served on; if it has us wait, it is waited for first."""
        since, told, bytes_out, pending, closes, error = so_far
        commands = len(told) // 2
        is_told = pending is None and error is None and not closes
        when = monotonic_ns()
        self._idle_wait.settle(client[0].encode())
        if is_told:
            if self._log_fd is not None:
                spoken = _SPOKEN[commands] % ((getpid(), client[3]) + told)  # noqa: RUF005 - no list
                try:
                    write(self._log_fd, spoken)
                except OSError:
                    self._log.write_batch(spoken, 1 + commands)
            self._idle_wait.wait(socket.fileno(), since, has_asked=commands > 0)
        progress = SessionProgress(since / _NANOSECONDS)
        if commands:
            progress.commands = commands
            progress.last_command = when / _NANOSECONDS
        if not is_told and self._log_fd is not None:
            progress.told = _TOLD[commands] % told
        progress.data = pending or b""
        progress.bytes_in = LENGTH * commands + len(progress.data)
        progress.bytes_out = bytes_out
        progress.is_over = closes
        progress.error = error
        return self._go_on(socket, client, progress, notice)


class SlowPathOnly:
    """Takes the place of `FastPath` at a TLS listener: every session takes the slow path."""

    __slots__ = ("_idle_wait",)

    def __init__(self, idle_wait: IdleWait) -> None:
        self._idle_wait = idle_wait

    def refresh(self) -> None:
        """Prepare nothing."""

    def serve(self, socket: _socket.socket, client: ClientHandoff, notice: bytes) -> bool:
        """Serve a client on the slow path; True if the handler can serve another client."""
        self._idle_wait.settle(client[0].encode())
        return self._idle_wait.go_on(socket, client, SessionProgress(monotonic()), notice)
