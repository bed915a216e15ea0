"""What a listener's clients get: answers to commands, or their own bytes back."""

from __future__ import annotations

from tetrad import events
from tetrad.jsonlines import members
from tetrad.protocol import Parser, printable
from tetrad.session import DISCARD, GO_ON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tetrad.commands import Clock, Close
    from tetrad.session import Session


class Service:
    """Serves one session's input."""

    @property
    def unfinished(self) -> bool:
        """Whether the client is in the middle of something."""
        return False

    def another(self) -> Service:
        """Return the same service for another client."""
        raise NotImplementedError

    def take(self, session: Session, data: bytes) -> str:
        """Serve some input: GO_ON, DISCARD, or why the session is to end."""
        raise NotImplementedError

    def finish(self, _session: Session) -> str:
        """The client has said all it will say: why the session ends."""
        return "eof"


class CommandService(Service):
    """Answers four-byte commands."""

    __slots__ = ("_commands", "_parser", "_told")

    def __init__(
        self, commands: Mapping[bytes, Clock | Close], parser: Parser, told: Mapping[bytes, str]
    ) -> None:
        self._commands = commands
        self._parser = parser
        self._told = told

    @classmethod
    def of(cls, commands: Mapping[bytes, Clock | Close]) -> CommandService:
        """Make it from its commands, with what the log says of each of them."""
        told = {name: members({"command": name.decode()}) for name in commands}
        return cls(commands, Parser(commands), told)

    def another(self) -> CommandService:
        """Return the same service for another client."""
        return CommandService(self._commands, self._parser.another(), self._told)

    @property
    def unfinished(self) -> bool:
        """Whether a command has begun and not ended."""
        return bool(self._parser.unfinished)

    def take(self, session: Session, data: bytes) -> str:
        """Answer the commands in `data` with one write, then log them."""
        names, invalid = self._parser.feed(data)
        answers = []
        verdict = GO_ON
        for name in names:
            command = self._commands[name]
            answers.append(command.answer())
            if command.closes:
                verdict = "quit"
                break
        if answers:
            session.send(b"".join(answers))
            session.count_commands(len(answers))
            for name in names[: len(answers)]:
                session.tell("info", events.CLIENT_COMMAND, self._told[name])
        if verdict == GO_ON and invalid is not None:
            self._refuse(session, invalid)
            return DISCARD
        return verdict

    def finish(self, session: Session) -> str:
        """Log what never became a command."""
        invalid = self._parser.finish()
        if invalid is not None:
            self._refuse(session, invalid)
        return "eof"

    def _refuse(self, session: Session, invalid: bytes) -> None:
        session.count_activity()
        fields = members({"command": printable(invalid)})
        session.tell("warning", events.CLIENT_INVALID, fields)


class EchoService(Service):
    """Sends every byte back."""

    def another(self) -> EchoService:
        """Return itself: it remembers nothing."""
        return self

    def take(self, session: Session, data: bytes) -> str:
        """Send it back."""
        session.count_activity()
        session.send(data)
        return GO_ON
