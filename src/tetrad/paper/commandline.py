"""The command line as plain data, read off its parser.

What argparse prints as help or usage is laid out differently by each version of Python, and by the
width of the terminal, so nothing is taken from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from tetrad.cli.parser import parser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Action(Protocol):
    """What argparse keeps of an option or an argument."""

    @property
    def option_strings(self) -> Sequence[str]:
        """The option's spellings; none for an argument."""
        ...

    @property
    def dest(self) -> str:
        """The name of its value."""
        ...

    @property
    def nargs(self) -> int | str | None:
        """How many values it takes; 0 for a switch."""
        ...

    @property
    def choices(self) -> Iterable[object] | None:
        """The values it may have; the commands and their parsers, for the choice of a command."""
        ...

    @property
    def metavar(self) -> str | tuple[str, ...] | None:
        """How its value is called."""
        ...

    @property
    def help(self) -> str | None:
        """What it does."""
        ...


class Parser(Protocol):
    """What argparse keeps of a command."""

    @property
    def description(self) -> str | None:
        """What it does."""
        ...

    @property
    def _actions(self) -> Sequence[Action]: ...


class Option(NamedTuple):
    """An option, or an argument if it has no spellings."""

    spellings: tuple[str, ...]
    value: str | None
    """What its value is called; None for a switch."""
    choices: tuple[str, ...] = ()
    many: bool = False
    text: str = ""


class Command(NamedTuple):
    """A command; without a name, all of `tetrad`."""

    name: str
    text: str
    options: tuple[Option, ...]


def actions(of: Parser) -> Sequence[Action]:
    """Return the options and arguments of a parser."""
    return of._actions  # noqa: SLF001 - there is no other way to look into a parser


def parsers(top: Parser) -> dict[str, Parser]:
    """Return the parser of each command; that of the whole has no name."""
    found: dict[str, Parser] = {"": top}
    for action in actions(top):
        if isinstance(action.choices, dict):
            found |= action.choices
    return found


def commands() -> list[Command]:
    """Return what is common to all commands, under no name, and each command's own."""
    found: list[Command] = []
    for name, one in parsers(parser()).items():
        common = found[0].options if found else ()
        own = (option for option in _options(one) if option not in common)
        found.append(Command(name, one.description or "", tuple(own)))
    return found


def _options(of: Parser) -> Iterator[Option]:
    for action in actions(of):
        if isinstance(action.choices, dict):
            continue
        choices = tuple(str(choice) for choice in action.choices or ())
        value = None if action.nargs == 0 else _value(action)
        text = (action.help or "") % vars(action)
        many = action.nargs == "*"
        yield Option(tuple(action.option_strings), value, choices, many=many, text=text)


def _value(action: Action) -> str:
    return action.metavar if isinstance(action.metavar, str) else action.dest.upper()
