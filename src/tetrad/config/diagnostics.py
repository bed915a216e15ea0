"""What is said about a value that cannot be used, and what would do instead."""

from __future__ import annotations

import difflib
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec


def explain(error: msgspec.ValidationError, value: object, kind: Any) -> str:
    """Say what was wrong with a value, and what was expected."""
    plain = without_annotation(kind)
    if typing.get_origin(plain) is typing.Literal:
        choices = typing.get_args(plain)
        expected = " or ".join((", ".join(choices[:-1]), choices[-1]))
        return f"expected {expected}, got {show(value)}{did_you_mean(str(value), choices)}"
    message = str(error).replace("`", "")
    message = message.replace("Expected int", "expected a whole number").replace(
        "Expected str", "expected a text"
    )
    message = message.partition(", got ")[0].replace(" | null", " or null")
    return f"{message}, got {show(value)}" if message.startswith("expected") else message


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a hint at the word that is nearest, if one is near."""
    close = difflib.get_close_matches(word, words)
    return f"; did you mean {close[0]}?" if close else ""


def show(value: object) -> str:
    """Return a value as it is shown in a line, which is to remain one."""
    shown = {None: "nothing (null)", True: "true", False: "false"}
    text = shown[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a terminal's width


def without_annotation(kind: Any) -> Any:
    """Return a type without what else is said about it."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
