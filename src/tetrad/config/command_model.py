"""The commands of a configuration: the kinds that there are, and the two that are built in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from tetrad.config import programs
from tetrad.config.answers import Size
from tetrad.config.programs import Argument, Function, Variable
from tetrad.config.section import ConstraintViolation, Section, Text
from tetrad.config.types import ClockFormat, CommandName, Duration, Timezone

if TYPE_CHECKING:
    from collections.abc import Iterable


class Clock(Section, frozen=True):
    """A command that answers the time."""

    clock: Annotated[ClockFormat, Meta(description="the format, as of strftime(3)")]
    timezone: Annotated[Timezone, Meta(description="local, UTC or a name such as Asia/Seoul")] = (
        Timezone("local")
    )


class Close(Section, frozen=True):
    """A command that answers a text and closes the connection."""

    close: Annotated[Text, Meta(description="the text")]


class FixedText(Section, frozen=True):
    """A command that answers a text."""

    text: Annotated[Text, Meta(description="the text")]


Timeout = Annotated[Duration, Meta(description="how long it may take before it is killed")]
MaxOutput = Annotated[Size, Meta(description="the longest answer; what goes beyond it is cut off")]
OnError = Annotated[
    Text | None, Meta(description="the answer if it fails or takes too long; null: none")
]


class Run(Section, frozen=True):
    """A command that answers what a program writes to its standard output."""

    run: Annotated[
        list[Argument],
        Meta(description="the program and its arguments; it is a path or is found in PATH"),
    ]
    env: Annotated[
        dict[Variable, Argument], Meta(description="variables of its environment, beside our own")
    ] = {}
    timeout: Timeout = Duration(10)
    max_output: MaxOutput = Size(1 << 16)
    on_error: OnError = None

    def misfits(self) -> Iterable[ConstraintViolation]:
        """Return what is wrong with a program that is not there."""
        if not self.run:
            yield ConstraintViolation("run", "a program is needed, e.g. [uptime, -p]")
            return
        try:
            _ = self.program
        except ValueError as error:
            yield ConstraintViolation("run", str(error))

    @property
    def program(self) -> str:
        """The path of the program. Raises ValueError."""
        path = self.env.get(Variable("PATH"), programs.PATH)
        return programs.find(self.run[0], path)


class Call(Section, frozen=True):
    """A command that answers what a function of Python returns."""

    call: Annotated[Function, Meta(description="the function, as package.module:function")]
    timeout: Timeout = Duration(10)
    max_output: MaxOutput = Size(1 << 16)
    on_error: OnError = None


Command = Clock | Close | FixedText | Run | Call

BUILT_IN_COMMANDS: dict[CommandName, Command | None] = {
    CommandName("time"): Clock(clock=ClockFormat("%Y/%m/%d %H:%M:%S")),
    CommandName("quit"): Close(close="quit"),
}
