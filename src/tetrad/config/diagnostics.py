"""Texts of configuration errors: what was expected, what was found, and the likely correction."""

from __future__ import annotations

import difflib
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

_MAX_SHOWN_CHARACTERS = 80

_TYPE_NAMES = {
    "Expected int": "expected an integer",
    "Expected str": "expected a string",
    "Expected bool": "expected true or false",
}
"""How msgspec's messages name a type, and how ours do."""


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has one line for each error."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def describe(error: msgspec.ValidationError, value: object, text: str, kind: Any) -> str:
    """Return why a scalar, written as `text` and read as `value`, is not a valid `kind`."""
    plain = strip_annotation(kind)
    if typing.get_origin(plain) is typing.Literal:
        choices = typing.get_args(plain)
        expected = " or ".join((", ".join(choices[:-1]), choices[-1]))
        return f"expected {expected}, got {show(value)}{did_you_mean(str(value), choices)}"
    message = str(error)
    words = [word for part in typing.get_args(plain) for word in _words(part)]
    if words and message.startswith(("Invalid enum", "Expected `int | str")):
        expected = f"an integer, {', '.join(words)} or null"
        return f"expected {expected}, got {show(value)}{did_you_mean(str(value), words)}"
    if message.startswith("Expected"):  # a message of msgspec, not of a `parse` method
        message = message.replace("`", "").partition(", got ")[0].replace(" | null", " or null")
        for name, ours in _TYPE_NAMES.items():
            message = message.replace(name, ours)
    if not message.startswith("expected"):
        return message
    if message.startswith("expected a string") and isinstance(value, bool | int | float):
        noun = "" if isinstance(value, bool) else "the number "
        return f'{message}, got {noun}{text}: write "{text}"'
    return f"{message}, got {show(value)}"


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a suggestion with the most similar word, or nothing if no word is similar."""
    close = difflib.get_close_matches(word, words)
    return f"; did you mean {close[0]}?" if close else ""


def show(value: object) -> str:
    """Return a value as YAML's types name it, shortened to a terminal's width, in one line."""
    names = {None: "no value (null)", True: "true", False: "false"}
    text = names[value] if value is None or isinstance(value, bool) else repr(value)
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[: _MAX_SHOWN_CHARACTERS - 3]}..."


def _words(kind: Any) -> tuple[str, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def strip_annotation(kind: Any) -> Any:
    """Return the type `T` of `Annotated[T, ...]`, and any other type unchanged."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
