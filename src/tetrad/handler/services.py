"""The services of a listener: `command` answers commands, `echo` sends every byte back.

A service decides what the input means; the session does all I/O.
"""

from __future__ import annotations

from tetrad.extension import Context
from tetrad.handler.commands import with_terminator
from tetrad.ipc import log_protocol
from tetrad.protocol.commands import Parser, printable
from tetrad.system.json_lite import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from tetrad.handler.commands import Command
    from tetrad.handler.jobs import JobSession
    from tetrad.ipc.fd_passing import ClientHandoff

    class ServedSession(JobSession, Protocol):
        """What a service uses of a session (`tetrad.handler.session.Session`)."""

        def send(self, data: bytes) -> None:
            """Send all of `data`. Raises SessionEnded."""

        def discard_input(self) -> None:
            """Throw away the input received so far."""

        def count_activity(self) -> None:
            """Restart the idle timeout."""


CONTINUE = ""
DISCARD = "discard"
"""What `Service.handle_input` returns while the session goes on; DISCARD throws away the rest of
the input received so far. Any other string is the reason why the session ends."""


class Service:
    """What a listener does with its clients' input. Serves one client at a time."""

    @property
    def is_mid_command(self) -> bool:
        """Whether the client has sent the beginning of a command."""
        return False

    def begin(self, client: ClientHandoff) -> None:
        """Begin a session with a client; nothing of the previous client is left."""

    def handle_input(self, session: ServedSession, data: bytes) -> str:
        """Process input; return CONTINUE, DISCARD or the reason why the session ends.

        Raises SessionEnded or OSError.
        """
        raise NotImplementedError

    def handle_eof(self, _session: ServedSession) -> str:
        """Process the end of the client's input; return the reason why the session ends."""
        return "eof"


class CommandService(Service):
    """Answers four-byte commands; each answer ends with `terminator`."""

    __slots__ = ("_client", "_commands", "_log_fields", "_parser", "_terminator")

    def __init__(self, commands: Mapping[bytes, Command], terminator: bytes) -> None:
        self._commands = commands
        self._terminator = terminator
        self._parser = Parser(commands)
        self._log_fields = {name: members({"command": name.decode()}) for name in commands}
        self._client: ClientHandoff = ("", "", 0, b"", "")

    @property
    def is_mid_command(self) -> bool:
        """Whether the client has sent the beginning of a command."""
        return bool(self._parser.unfinished)

    def begin(self, client: ClientHandoff) -> None:
        """Begin a session with a client; nothing of the previous client is left."""
        self._client = client
        self._parser.reset()

    def handle_input(self, session: ServedSession, data: bytes) -> str:
        """Answer the commands in `data`."""
        names, invalid = self._parser.feed(data)
        has_job = any(self._commands[name].is_job for name in names)
        if invalid is not None and has_job:
            session.discard_input()  # now: input that arrives during the job is kept
        if self._answer(session, names):
            return "quit"
        if invalid is None:
            return CONTINUE
        self._log_invalid(session, invalid)
        return CONTINUE if has_job else DISCARD

    def handle_eof(self, session: ServedSession) -> str:
        """Log an unfinished command as invalid."""
        invalid = self._parser.finish()
        if invalid is not None:
            self._log_invalid(session, invalid)
        return "eof"

    def _answer(self, session: ServedSession, names: list[bytes]) -> bool:
        """Answer commands in their order; True if one of them closes, which is then the last.

        Answers to the commands before a job are sent before it starts.
        """
        immediate: list[bytes] = []
        for name in names:
            command = self._commands[name]
            if command.is_job:
                self._send_answers(session, immediate)
                immediate = []
                self._run_job(session, name)
            else:
                immediate.append(name)
                if command.closes:
                    self._send_answers(session, immediate)
                    return True
        self._send_answers(session, immediate)
        return False

    def _send_answers(self, session: ServedSession, names: list[bytes]) -> None:
        """Answer immediate commands with one write, then log them."""
        if not names:
            return
        answers = [self._commands[name].answer() for name in names]
        if self._terminator:
            answers = [with_terminator(answer, self._terminator) for answer in answers]
        session.send(b"".join(answers))
        session.count_commands(len(names))
        fields = [self._log_fields[name] for name in names]
        session.log_commands("info", log_protocol.CLIENT_COMMAND, *fields)

    def _run_job(self, session: ServedSession, name: bytes) -> None:
        client, _, _, _, connection = self._client
        context = Context(client, connection, name.decode())
        answer = self._commands[name].run(context, session)
        if answer is not None:
            session.send(with_terminator(answer, self._terminator))

    def _log_invalid(self, session: ServedSession, invalid: bytes) -> None:
        fields = members({"command": printable(invalid)})
        session.log_commands("warning", log_protocol.CLIENT_INVALID, fields)


class EchoService(Service):
    """Sends every byte back."""

    def handle_input(self, session: ServedSession, data: bytes) -> str:
        """Send `data` back; the idle timeout starts when the client has received it."""
        session.send(data)
        session.count_activity()
        return CONTINUE
