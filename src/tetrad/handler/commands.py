"""The commands of the configuration: which bytes each answers, or which job it runs.

A command never reads from the client or writes to it.
"""

from __future__ import annotations

import time

from tetrad.system import timezone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tetrad.extension import Context
    from tetrad.handler.jobs import JobSession
    from tetrad.ipc.runtime_config import CommandConfig, JobConfig


class Command:
    """A command. An immediate one has an `answer`; one that `is_job` is `run`.

    One that `closes` is the last of its session.
    """

    closes = False
    is_job = False
    __slots__ = ()

    def answer(self) -> bytes:
        """Return the answer of an immediate command."""
        raise NotImplementedError

    def run(self, context: Context, session: JobSession) -> bytes | None:
        """Run a job to its end and log it; return the answer, None for no answer.

        Raises SessionEnded or OSError if the session ends before the job.
        """
        raise NotImplementedError


class Clock(Command):
    """Answers the time, in a format of strftime(3)."""

    __slots__ = ("_answer", "_format", "_second", "_zone")

    def __init__(self, config: CommandConfig) -> None:
        self._format = config["text"]
        self._zone = config["timezone"]
        self._second = -1
        self._answer = b""

    def answer(self) -> bytes:
        """Return the time now; it is formatted once per second."""
        second = int(time.time())
        if second != self._second:
            self._answer = self._format_time(second)
            self._second = second
        return self._answer

    def _format_time(self, second: int) -> bytes:
        if self._zone == "local":
            timezone.follow_machine()
            return time.strftime(self._format, time.localtime(second)).encode()
        if self._zone == "UTC":
            return time.strftime(self._format, time.gmtime(second)).encode()
        return timezone.in_zone(self._zone, self._format, second).encode()


class Text(Command):
    """Answers a fixed text."""

    __slots__ = ("_answer",)

    def __init__(self, config: CommandConfig) -> None:
        self._answer = config["text"].encode()

    def answer(self) -> bytes:
        """Return the text."""
        return self._answer


class Close(Text):
    """Answers a fixed text and closes the connection."""

    closes = True
    __slots__ = ()


class Job(Command):
    """Answers the output of a program or the result of a function.

    The modules for that are imported only where the configuration has a job, because each fork
    copies page tables for them; and in the master, because a handler might import those of another
    version that was installed meanwhile.
    """

    is_job = True
    __slots__ = ("_config", "_run_job")

    def __init__(self, config: JobConfig) -> None:
        self._config = config
        from tetrad.handler.jobs import run_job  # noqa: PLC0415 - only for a job, see above

        self._run_job = run_job

    def run(self, context: Context, session: JobSession) -> bytes | None:
        """Run the job to its end and log it; return the answer, None for no answer."""
        return self._run_job(self._config, context, session)


KINDS: dict[str, type[Any]] = {
    "clock": Clock,
    "close": Close,
    "text": Text,
    "run": Job,
    "call": Job,
}


def make(configs: Mapping[str, CommandConfig | JobConfig]) -> dict[bytes, Command]:
    """Return the commands by their names, four bytes each."""
    return {name.encode(): KINDS[config["kind"]](config) for name, config in configs.items()}


def immediate(commands: Mapping[bytes, Command]) -> dict[bytes, Command]:
    """Return the commands that are not jobs."""
    return {name: command for name, command in commands.items() if not command.is_job}


def with_terminator(answer: bytes, terminator: bytes) -> bytes:
    """Return an answer that ends with `terminator`, which is not added twice."""
    return answer if answer.endswith(terminator) else answer + terminator
