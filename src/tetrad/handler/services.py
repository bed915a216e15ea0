"""What a listener's clients get: answers to commands, or their own bytes back."""

from __future__ import annotations

from tetrad.extension import Context
from tetrad.handler.commands import terminated
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

        def discard(self) -> None:
            """Throw away the input received so far."""

        def count_activity(self) -> None:
            """Restart the idle timeout."""


CONTINUE = ""
DISCARD = "discard"
"""What `Service.take` returns while the session goes on; DISCARD throws away the rest of the input
received so far. Any other string is the reason why the session ends."""


class Service:
    """Serves one session's input."""

    @property
    def unfinished(self) -> bool:
        """Whether the client is in the middle of something."""
        return False

    def another(self, client: ClientHandoff) -> Service:
        """Return the same service for another client."""
        raise NotImplementedError

    def take(self, session: ServedSession, data: bytes) -> str:
        """Serve some input: CONTINUE, DISCARD, or why the session is to end."""
        raise NotImplementedError

    def finish(self, _session: ServedSession) -> str:
        """The client has said all it will say: why the session ends."""
        return "eof"


class CommandService(Service):
    """Answers four-byte commands; each answer ends with the `terminator`."""

    __slots__ = ("_client", "_commands", "_parser", "_terminator", "_told")

    def __init__(
        self,
        commands: Mapping[bytes, Command],
        terminator: bytes,
        parser: Parser,
        told: Mapping[bytes, str],
        client: ClientHandoff | None = None,
    ) -> None:
        self._commands = commands
        self._terminator = terminator
        self._parser = parser
        self._told = told
        self._client = client

    @classmethod
    def of(cls, commands: Mapping[bytes, Command], terminator: bytes) -> CommandService:
        """Make it from its commands, with what the log says of each of them."""
        told = {name: members({"command": name.decode()}) for name in commands}
        return cls(commands, terminator, Parser(commands), told)

    def another(self, client: ClientHandoff) -> CommandService:
        """Return the same service for another client."""
        parser = self._parser.another()
        return CommandService(self._commands, self._terminator, parser, self._told, client)

    @property
    def unfinished(self) -> bool:
        """Whether a command has begun and not ended."""
        return bool(self._parser.unfinished)

    def take(self, session: ServedSession, data: bytes) -> str:
        """Answer the commands in `data`."""
        names, invalid = self._parser.feed(data)
        takes_time = any(self._commands[name].takes_time for name in names)
        if invalid is not None and takes_time:
            session.discard()  # what comes from now on is not to be thrown away
        if self._answer(session, names):
            return "quit"
        if invalid is None:
            return CONTINUE
        self._refuse(session, invalid)
        return CONTINUE if takes_time else DISCARD

    def _answer(self, session: ServedSession, names: list[bytes]) -> bool:
        """Answer commands in their order; True if one of them closes, which is then the last.

        What comes before one that takes its time does not wait for it.
        """
        commands = self._commands
        prompt: list[bytes] = []
        for name in names:
            command = commands[name]
            if command.takes_time:
                self._send(session, prompt)
                prompt = []
                self._perform(session, name)
            else:
                prompt.append(name)
                if command.closes:
                    self._send(session, prompt)
                    return True
        self._send(session, prompt)
        return False

    def _send(self, session: ServedSession, names: list[bytes]) -> None:
        """Answer commands that need no time with one write, then log them."""
        if not names:
            return
        answers = [self._commands[name].answer() for name in names]
        if self._terminator:
            answers = [terminated(answer, self._terminator) for answer in answers]
        session.send(b"".join(answers))
        session.count_commands(len(names))
        for name in names:
            session.log_json("info", log_protocol.CLIENT_COMMAND, self._told[name])

    def _perform(self, session: ServedSession, name: bytes) -> None:
        """Answer a command that takes its time."""
        client, _, _, _, connection = self._client or ("", "", 0, b"", "")
        context = Context(client, connection, name.decode())
        answer = self._commands[name].perform(context, session)
        if answer is not None:
            session.send(terminated(answer, self._terminator))

    def finish(self, session: ServedSession) -> str:
        """Log what never became a command."""
        invalid = self._parser.finish()
        if invalid is not None:
            self._refuse(session, invalid)
        return "eof"

    def _refuse(self, session: ServedSession, invalid: bytes) -> None:
        session.count_activity()
        fields = members({"command": printable(invalid)})
        session.log_json("warning", log_protocol.CLIENT_INVALID, fields)


class EchoService(Service):
    """Sends every byte back."""

    def another(self, _client: ClientHandoff) -> EchoService:
        """Return itself: it remembers nothing."""
        return self

    def take(self, session: ServedSession, data: bytes) -> str:
        """Send it back; the client is idle from when it has taken that."""
        session.send(data)
        session.count_activity()
        return CONTINUE
