"""The commands of a configuration: the kinds of commands, and the two built-in ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from tetrad.config import programs
from tetrad.config.section import ConstraintViolation, Section, Text
from tetrad.config.types import (
    Argument,
    ClockFormat,
    CommandName,
    Duration,
    Function,
    Size,
    Timezone,
    Variable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class Clock(Section, frozen=True):
    """A command that answers with the time."""

    clock: Annotated[ClockFormat, Meta(description="the format, as in strftime(3)")]
    timezone: Annotated[Timezone, Meta(description="local, UTC or a name such as Asia/Seoul")] = (
        Timezone("local")
    )

    @property
    def zone(self) -> str:
        """The zone as `local` or `UTC`; as a value of TZ if the process has to be in that zone."""
        is_simple = self.timezone == "local" or (
            self.timezone == "UTC" and not self.clock.has_epoch
        )
        return str(self.timezone) if is_simple else self.timezone.variable


class Close(Section, frozen=True):
    """A command that answers with a fixed text and closes the connection."""

    close: Annotated[Text, Meta(description="the text")]


class FixedText(Section, frozen=True):
    """A command that answers with a fixed text."""

    text: Annotated[Text, Meta(description="the text")]


MAX_OUTPUT_BYTES = 1 << 30
"""A handler has the whole answer in its memory."""

Timeout = Annotated[Duration, Meta(description="time after which it is killed")]
MaxOutput = Annotated[Size, Meta(description="maximum size of the answer; the rest is cut off")]
OnError = Annotated[
    Text | None, Meta(description="answer when it fails or takes too long; null: no answer")
]
MaxRunning = Annotated[
    Annotated[int, Meta(ge=1, le=1_000_000)] | None,
    Meta(description="at once, for all clients; beyond it on_error is the answer; null: no limit"),
]
Memory = Annotated[
    Size | None, Meta(description="address space of each of its processes; null: no limit")
]
Cpu = Annotated[
    Duration | None,
    Meta(description="processor time of each of its processes, in full seconds; null: no limit"),
]
FileSize = Annotated[
    Size | None, Meta(description="size of the files that it can write; null: no limit")
]

DEFAULT_MAX_RUNNING = 100
DEFAULT_MEMORY = Size(2 << 30)
DEFAULT_CPU = Duration(60)
DEFAULT_FILE_SIZE = Size(256 << 20)


class Run(Section, frozen=True):
    """A command that answers with the standard output of a program."""

    run: Annotated[
        list[Argument],
        Meta(description="the program, as an absolute path or a name in PATH, and its arguments"),
    ]
    env: Annotated[
        dict[Variable, Argument], Meta(description="environment variables to add or replace")
    ] = {}
    timeout: Timeout = Duration(10)
    max_output: MaxOutput = Size(1 << 16)
    on_error: OnError = None
    max_running: MaxRunning = DEFAULT_MAX_RUNNING
    memory: Memory = DEFAULT_MEMORY
    cpu: Cpu = DEFAULT_CPU
    file_size: FileSize = DEFAULT_FILE_SIZE

    def violations(self) -> Iterable[ConstraintViolation]:
        """Return violations: the program does not exist, or its answer may be too long."""
        yield from _output_violations(self)
        if not self.run:
            message = "expected a program and its arguments, such as [uptime, -p]"
            yield ConstraintViolation("run", message)
            return
        try:
            _ = self.program
        except ValueError as error:
            yield ConstraintViolation("run", str(error))

    @property
    def program(self) -> str:
        """The absolute path of the program. Raises ValueError if there is none."""
        path = self.env.get(Variable("PATH"), programs.PATH)
        return programs.find_program(self.run[0], path)


class Call(Section, frozen=True):
    """A command that answers with the return value of a Python function."""

    call: Annotated[Function, Meta(description="the function, as package.module:function")]
    timeout: Timeout = Duration(10)
    max_output: MaxOutput = Size(1 << 16)
    on_error: OnError = None
    max_running: MaxRunning = DEFAULT_MAX_RUNNING
    memory: Memory = DEFAULT_MEMORY
    cpu: Cpu = DEFAULT_CPU
    file_size: FileSize = DEFAULT_FILE_SIZE

    def violations(self) -> Iterable[ConstraintViolation]:
        """Return a violation if the answer may be too long."""
        return _output_violations(self)


def _output_violations(command: Run | Call) -> Iterable[ConstraintViolation]:
    if command.max_output > MAX_OUTPUT_BYTES:
        yield ConstraintViolation("max_output", "expected a size of at most 1GiB")


Command = Clock | Close | FixedText | Run | Call

BUILT_IN_COMMANDS: dict[CommandName, Command | None] = {
    CommandName("time"): Clock(clock=ClockFormat("%Y/%m/%d %H:%M:%S")),
    CommandName("quit"): Close(close="quit"),
}
