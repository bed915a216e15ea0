"""What a listener's clients get: answers to commands, or their own bytes back."""

from __future__ import annotations

from tetrad import events
from tetrad.protocol import Parser, printable
from tetrad.session import Ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tetrad.commands import Clock, Close
    from tetrad.session import Session


class Service:
    """Serves a session's input."""

    @property
    def unfinished(self) -> bool:
        """Whether the client is in the middle of something."""
        return False

    def take(self, session: Session, data: bytes) -> bool:
        """Serve some input; True if what else is there already is to be thrown away."""
        raise NotImplementedError

    def finish(self, session: Session) -> None:
        """The client has said all it will say."""


class CommandService(Service):
    """Answers four-byte commands."""

    def __init__(self, commands: Mapping[bytes, Clock | Close]) -> None:
        self._commands = commands
        self._parser = Parser(commands)

    @property
    def unfinished(self) -> bool:
        """Whether a command has begun and not ended."""
        return bool(self._parser.unfinished)

    def take(self, session: Session, data: bytes) -> bool:
        """Answer the commands in `data` with one write, then log them."""
        commands, invalid = self._parser.feed(data)
        answers = []
        closing = False
        for name in commands:
            command = self._commands[name]
            answers.append(command.answer())
            closing = command.closes
            if closing:
                break
        if answers:
            session.send(b"".join(answers))
        for name in commands[: len(answers)]:
            session.count_command()
            session.log("info", events.CLIENT_COMMAND, command=name.decode())
        if closing:
            raise Ended("quit")
        if invalid is not None:
            self._refuse(session, invalid)
        return invalid is not None

    def finish(self, session: Session) -> None:
        """Log what never became a command."""
        invalid = self._parser.finish()
        if invalid is not None:
            self._refuse(session, invalid)

    def _refuse(self, session: Session, invalid: bytes) -> None:
        session.count_activity()
        session.log("warning", events.CLIENT_INVALID, command=printable(invalid))


class EchoService(Service):
    """Sends every byte back."""

    def take(self, session: Session, data: bytes) -> bool:
        """Send it back."""
        session.count_activity()
        session.send(data)
        return False
