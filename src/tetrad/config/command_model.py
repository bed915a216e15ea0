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


Timeout = Annotated[Duration, Meta(description="time after which it is killed")]
MaxOutput = Annotated[Size, Meta(description="maximum size of the answer; the rest is cut off")]
OnError = Annotated[
    Text | None, Meta(description="answer when it fails or takes too long; null: no answer")
]


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

    def violations(self) -> Iterable[ConstraintViolation]:
        """Return a violation if the program does not exist."""
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


Command = Clock | Close | FixedText | Run | Call

BUILT_IN_COMMANDS: dict[CommandName, Command | None] = {
    CommandName("time"): Clock(clock=ClockFormat("%Y/%m/%d %H:%M:%S")),
    CommandName("quit"): Close(close="quit"),
}
