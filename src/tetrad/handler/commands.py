"""What a command answers: at once, or after a while."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tetrad.extension import Context
    from tetrad.handler.jobs import JobSession
    from tetrad.ipc.runtime_config import CommandConfig, JobConfig


class Command:
    """What a client may send. It `answer`s at once, unless it `takes_time`: then it `perform`s.

    One that `closes` is the last of its session.
    """

    closes = False
    takes_time = False
    __slots__ = ()

    def answer(self) -> bytes:
        """Return the answer."""
        raise NotImplementedError

    def perform(self, context: Context, session: JobSession) -> bytes | None:
        """Find the answer while the session goes on, and log it; None if there is none.

        Raises what ends the session, if it ends meanwhile.
        """
        raise NotImplementedError


class Clock(Command):
    """Answers the time, as strftime(3) writes it."""

    __slots__ = ("_answer", "_format", "_second", "_zone")

    def __init__(self, config: CommandConfig) -> None:
        self._format = config["text"]
        self._zone = config["timezone"]
        self._second = -1
        self._answer = b""

    def answer(self) -> bytes:
        """Return the time now; within one second it is the same text."""
        second = int(time.time())
        if second != self._second:
            self._answer = self._write(second)
            self._second = second
        return self._answer

    def _write(self, second: int) -> bytes:
        if self._zone == "local":
            moment = time.localtime(second)
        elif self._zone == "UTC":
            moment = time.gmtime(second)
        else:
            moment = _in_zone(self._zone, second)
        return time.strftime(self._format, moment).encode()


class Text(Command):
    """Answers a text."""

    __slots__ = ("_answer",)

    def __init__(self, config: CommandConfig) -> None:
        self._answer = config["text"].encode()

    def answer(self) -> bytes:
        """Return the text."""
        return self._answer


class Close(Text):
    """Answers a text, and the connection is closed."""

    closes = True
    __slots__ = ()


class Job(Command):
    """Answers what a program or a function says.

    What that takes is loaded where there is such a command, and only there, for every fork pays for
    it; and not later, when another version may be installed.
    """

    takes_time = True
    __slots__ = ("_config", "_perform")

    def __init__(self, config: JobConfig) -> None:
        self._config = config
        from tetrad.handler.jobs import perform  # noqa: PLC0415 - only for a job, see above

        self._perform = perform

    def perform(self, context: Context, session: JobSession) -> bytes | None:
        """Have it done, and return what is to be answered."""
        return self._perform(self._config, context, session)


KINDS: dict[str, type[Any]] = {
    "clock": Clock,
    "close": Close,
    "text": Text,
    "run": Job,
    "call": Job,
}


def make(configs: Mapping[str, CommandConfig | JobConfig]) -> dict[bytes, Command]:
    """Return the commands by the four bytes that call them."""
    return {name.encode(): KINDS[config["kind"]](config) for name, config in configs.items()}


def prompt(commands: Mapping[bytes, Command]) -> dict[bytes, Command]:
    """Return those that answer at once."""
    return {name: command for name, command in commands.items() if not command.takes_time}


def terminated(answer: bytes, terminator: bytes) -> bytes:
    """Return an answer with its end; one that has it already keeps it."""
    return answer if answer.endswith(terminator) else answer + terminator


def _in_zone(zone: str, second: int) -> time.struct_time:
    """Return the time in another zone. A handler has one thread, so nobody sees the change."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        return time.localtime(second)
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
